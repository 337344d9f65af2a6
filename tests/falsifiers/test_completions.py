"""What counts as Python that a model wrote, and what does not."""

from __future__ import annotations

import pytest

from falsifiers.completions import split_prompts, statements_added
from falsifiers.tokens import TEXTS

PROMPT = 'def area(r):\n    """Return the area."""\n'


@pytest.mark.parametrize(
    ("continuation", "statements"),
    [
        ("    return 3.14 * r * r\n", 1),
        ("    x = r\n    return x\n", 2),
        ("    return 3 * r\n\n\ndef perimeter(r):\n    return (", 1),
        ("    if r < 0:\n        raise ValueError\n    return r\n", 2),
        ("    @property\n    def x(self): return 1\n", 1),
    ],
)
def test_statements_of_the_continuation_count(continuation: str, statements: int) -> None:
    """What is cut off in the middle of a line does not spoil what parses before it."""
    assert statements_added(PROMPT, continuation) == statements


@pytest.mark.parametrize(
    "continuation",
    [
        "",
        "\n\n\n",
        "    pass\n",
        "    ...\n",
        "    r\n",
        '    """Another docstring."""\n',
        "    # only a comment\n",
        "    return return\n",
        "  return 1\n",
        "    return (1,\n    2,\n    3,\n",
        "    x = '\n" * 3,
        "def nothing():\n    pass\n",
        "    x = \0\n",
    ],
)
def test_trivial_or_broken_continuations_add_nothing(continuation: str) -> None:
    """Neither what says nothing nor what does not parse from its first line on is Python."""
    assert statements_added(PROMPT, continuation) == 0


def test_the_prompt_itself_does_not_count() -> None:
    """A prompt that already holds statements must not pass for the model."""
    prompt = "import math\nx = math.pi\n"
    assert statements_added(prompt, "") == 0
    assert statements_added(prompt, "y = 2\n") == 1


def test_deep_nesting_is_no_python_and_no_crash() -> None:
    """The parser's own limits are a verdict about the text."""
    assert statements_added(PROMPT, "    return " + "(" * 5000 + ")" * 5000 + "\n") == 0


def test_a_warning_of_the_parser_is_no_error(recwarn: pytest.WarningsRecorder) -> None:
    """An escape that a later Python refuses is still Python here, and says nothing."""
    assert statements_added(PROMPT, "    return '\\d'\n") == 1
    assert not list(recwarn)


def test_the_hundred_prompts_are_distinct_signatures_with_a_docstring() -> None:
    """Each is whole lines, and each lacks its body."""
    prompts = split_prompts((TEXTS / "python_prompts.txt").read_text(encoding="utf-8"))
    assert len(prompts) == len(set(prompts)) == 100
    for prompt in prompts:
        assert prompt.startswith("def ") and prompt.endswith('."""\n')
        assert prompt.count("\n") == 2
        assert statements_added(prompt, "    return 1\n") == 1
