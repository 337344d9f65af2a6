"""What is done to source: the operators of cosmic-ray, and four that numerical code needs.

cosmic-ray changes operators, comparisons, numbers, booleans, loops, exceptions and decorators. What
numerical code gets wrong as well is a step left out, an argument left to its default, a cast or a
`detach` that is missing, or a function taken for its neighbour.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cosmic_ray.ast import Visitor, ast_nodes, get_ast
from cosmic_ray.operators.provider import OperatorProvider

Position = tuple[int, int]
"""Line from 1, column in characters from 0."""

_ARGUMENTS = frozenset({"VariableReplacer", "VariableInserter"})
"""They put random numbers for variables, anew each time, so that no mutant could be named."""

_FAMILIES = {
    "ReplaceBinaryOperator": "arithmetic",
    "ReplaceUnaryOperator": "arithmetic",
    "ReplaceComparisonOperator": "comparison",
    "NumberReplacer": "number",
    "AddNot": "logic",
    "ReplaceTrueWithFalse": "logic",
    "ReplaceFalseWithTrue": "logic",
    "ReplaceAndWithOr": "logic",
    "ReplaceOrWithAnd": "logic",
    "ReplaceBreakWithContinue": "flow",
    "ReplaceContinueWithBreak": "flow",
    "ExceptionReplacer": "flow",
    "ZeroIterationForLoop": "flow",
    "RemoveDecorator": "flow",
}
DROP_STATEMENT, DROP_ARGUMENT = "DropStatement", "DropArgument"
DROP_CALL, TAKE_NEIGHBOUR = "DropCall", "TakeNeighbour"
_OWN_FAMILIES = {
    DROP_STATEMENT: "statement",
    DROP_ARGUMENT: "argument",
    DROP_CALL: "call",
    TAKE_NEIGHBOUR: "name",
}

_CIRCLES = (
    ("sum", "mean"), ("min", "max"), ("amin", "amax"), ("sin", "cos"), ("all", "any"),
    ("zeros", "ones"), ("zeros_like", "ones_like"), ("float32", "float64", "bfloat16"),
    ("float", "double"), ("rsqrt", "sqrt"), ("exp", "log"), ("ceil", "floor"),
    ("mul_", "add_"), ("isfinite", "isnan"), ("append", "extend"),
    ("exp_avg", "exp_avg_sq"), ("train", "eval"), ("no_grad", "enable_grad"),
)  # fmt: skip
_BUILTINS = (("min", "max"), ("all", "any"))


def _next_of(circles: tuple[tuple[str, ...], ...]) -> dict[str, str]:
    return {
        name: circle[(place + 1) % len(circle)]
        for circle in circles
        for place, name in enumerate(circle)
    }


_ATTRIBUTES, _NAMES = _next_of(_CIRCLES), _next_of(_BUILTINS)


@dataclass(frozen=True)
class Spot:
    """One change that can be made. `index` tells those of one operator at one place apart."""

    operator: str
    start: Position
    end: Position
    index: int

    @property
    def family(self) -> str:
        """What kind of change it is."""
        return _OWN_FAMILIES.get(self.operator) or _FAMILIES[self.operator.partition("_")[0]]


def spots(source: str) -> Iterator[Spot]:
    """Every change that can be tried; of some the result is no Python, or means the same."""
    yield from _of_cosmic_ray(source)
    for operator, start, end, _ in _own(source):
        yield Spot(operator, start, end, 0)


def changed(source: str, spot: Spot) -> str | None:
    """`source` after the change; None where that is no Python, or the same program."""
    if spot.operator == "ExceptionReplacer" and not _text_at(source, spot).isidentifier():
        return None  # of a dotted name cosmic-ray 8.7 replaces a part, or fails
    try:
        text = _changed(source, spot)
        return None if ast.dump(ast.parse(text)) == ast.dump(ast.parse(source)) else text
    except (SyntaxError, ValueError):
        return None


def _changed(source: str, spot: Spot) -> str:
    if spot.operator in _OWN_FAMILIES:
        return _own_change(source, spot)
    text: str = _OneChange(spot).walk(get_ast(source)).get_code()
    return text


def _text_at(source: str, spot: Spot) -> str:
    lines = source.splitlines(keepends=True)[spot.start[0] - 1 : spot.end[0]]
    lines[-1] = lines[-1][: spot.end[1]]
    lines[0] = lines[0][spot.start[1] :]
    return "".join(lines)


def library_version() -> str:
    """The name and version of the library whose operators these are."""
    from importlib import metadata

    return f"cosmic-ray {metadata.version('cosmic-ray')}, parso {metadata.version('parso')}"


def _operators() -> dict[str, Any]:
    provider = OperatorProvider()
    return {name: provider[name]() for name in provider if name not in _ARGUMENTS}


def _of_cosmic_ray(source: str) -> Iterator[Spot]:
    operators = _operators()
    for node in ast_nodes(get_ast(source)):
        for name, operator in operators.items():
            for index, (start, end) in enumerate(operator.mutation_positions(node)):
                yield Spot(name, start, end, index)


class _OneChange(Visitor):  # type: ignore[misc]
    """Walks a tree and changes it at one spot."""

    def __init__(self, spot: Spot) -> None:
        self._spot = spot
        self._operator = _operators()[spot.operator]
        self._done = False

    def visit(self, node: Any) -> Any:
        """The node, changed where it is the one."""
        wanted = (self._spot.start, self._spot.end)
        if self._done:
            return node
        positions = list(self._operator.mutation_positions(node))
        if self._spot.index >= len(positions) or positions[self._spot.index] != wanted:
            return node
        self._done = True
        return self._operator.mutate(node, self._spot.index)


Edit = tuple[str, Position, Position, str]
"""Operator, from, to, and what is put there."""


def _own(source: str) -> Iterator[Edit]:
    lines = source.splitlines(keepends=True)

    def place(line: int, column: int) -> Position:
        return line, len(lines[line - 1].encode()[:column].decode())

    def start(node: Any) -> Position:
        return place(node.lineno, node.col_offset)

    def end(node: Any) -> Position:
        return place(node.end_lineno, node.end_col_offset)

    tree = ast.parse(source)
    modules = {"self", "cls", *_imported(tree)}
    for node in ast.walk(tree):
        if _can_be_dropped(node):
            yield DROP_STATEMENT, start(node), end(node), "pass"
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg is not None:
                    yield DROP_ARGUMENT, start(keyword), end(keyword), ""
            if isinstance(node.func, ast.Attribute) and not _is_one_of(node.func.value, modules):
                yield DROP_CALL, end(node.func.value), end(node), ""
        elif isinstance(node, ast.Attribute) and node.attr in _ATTRIBUTES:
            line, column = end(node)
            begin = (line, column - len(node.attr))
            yield TAKE_NEIGHBOUR, begin, (line, column), _ATTRIBUTES[node.attr]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _NAMES:
            yield TAKE_NEIGHBOUR, start(node), end(node), _NAMES[node.id]


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)


def _is_one_of(node: ast.expr, names: set[str]) -> bool:
    """Whether a call on it can only be dropped to no sense: a module, or the object itself."""
    return ast.unparse(node) in names


def _can_be_dropped(node: ast.AST) -> bool:
    # Without a plain assignment to a name, the name would not be there: any run would say so.
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, (ast.Constant, ast.Yield, ast.YieldFrom))
    if isinstance(node, ast.Assign):
        return not all(isinstance(target, ast.Name) for target in node.targets)
    return isinstance(node, (ast.AugAssign, ast.Raise))


def _own_change(source: str, spot: Spot) -> str:
    found = (text for op, start, end, text in _own(source) if _is(spot, op, start, end))
    text = next(found)
    lines = source.splitlines(keepends=True)
    (first, left), (last, right) = spot.start, spot.end
    before = "".join(lines[: first - 1]) + lines[first - 1][:left]
    after = lines[last - 1][right:] + "".join(lines[last:])
    if spot.operator == DROP_ARGUMENT:
        # The comma that follows goes with it; without one, a comma before may stay.
        bare = after.lstrip()
        after = bare[1:] if bare.startswith(",") else after
    return before + text + after


def _is(spot: Spot, operator: str, start: Position, end: Position) -> bool:
    return (spot.operator, spot.start, spot.end) == (operator, start, end)
