"""How much of what a model wrote is Python: parsed only, and never run.

A completion is cut off in the middle of a line by its number of tokens, so what is judged is the
longest run of leading lines that parses.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

MOST_LINES = 200
"""A continuation is a few hundred tokens; lines beyond this are not looked at."""


def split_prompts(text: str) -> list[str]:
    """The prompts of a file, which empty lines separate; each ends in a newline."""
    return [f"{prompt.strip()}\n" for prompt in text.split("\n\n") if prompt.strip()]


def statements_added(prompt: str, continuation: str) -> int:
    """Non-trivial statements of `continuation` in the longest run of leading lines that parses.

    Args:
        prompt: whole lines of Python, ending in a newline.
        continuation: what the model wrote after them.

    Returns:
        Statements that begin after the prompt, ``pass`` and lone names or constants (a docstring,
        an ellipsis) not among them; a compound statement counts by what stands in it.
    """
    lines = (prompt + continuation).splitlines()[: prompt.count("\n") + MOST_LINES]
    given = prompt.count("\n")
    for end in range(len(lines), given, -1):
        tree = _parsed("\n".join(lines[:end]))
        if tree is not None:
            return sum(node.lineno > given for node in _non_trivial(tree))
    return 0


def _parsed(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that a later Python will refuse
            return ast.parse(source + "\n")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _non_trivial(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt) or isinstance(node, ast.Pass) or hasattr(node, "body"):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, (ast.Constant, ast.Name)):
            continue
        yield node
