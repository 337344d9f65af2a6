"""The grammar of claims: comparisons over declared names, evaluated without Python's `eval`.

    claim       = comparison { "and" comparison }
    comparison  = sum  operator sum { operator sum }          (chains: 0 <= x <= 1)
                | sum  "in" "[" literal { "," literal } "]"
                | sum  ("contains" | "matches") string
    operator    = "<" | "<=" | "==" | ">=" | ">"
    sum         = product { ("+" | "-") product }
    product     = factor { ("*" | "/") factor }
    factor      = "-" factor | atom [ "**" factor ]
    atom        = number | string | "true" | "false" | name | function "(" sum { "," sum } ")"
                | "(" sum ")"

Functions are ln, log2, sqrt, abs, min, max. There is no `or`, no `not` and no short cut: every
comparison is evaluated and recorded. A non-finite value in any operand falsifies, whatever the
operator; a domain error (ln of zero, division by zero) is `ClaimBroken`, never a verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Value = bool | int | float | str
ORDER = ("<", "<=", "==", ">=", ">")
_MIRRORED = {"<": ">", "<=": ">=", "==": "==", ">=": "<=", ">": "<"}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
}
_FUNCTIONS: dict[str, tuple[int, int, Callable[..., float]]] = {
    "ln": (1, 1, math.log),
    "log2": (1, 1, math.log2),
    "sqrt": (1, 1, math.sqrt),
    "abs": (1, 1, abs),
    "min": (2, 8, min),
    "max": (2, 8, max),
}
KEYWORDS = frozenset({"and", "or", "not", "in", "contains", "matches", "true", "false"})
RESERVED = KEYWORDS | _FUNCTIONS.keys()
# Nobody reads a longer claim, and the parser recurses: these keep it far from Python's own limit.
_MOST_TOKENS = 256
_DEEPEST = 24
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<string>\"[^\"]*\"|'[^']*')"
    r"|(?P<op>\*\*|<=|>=|==|[-+*/()<>,\[\]]))"
)


class ClaimSyntaxError(ValueError):
    """The claim is not of the grammar. `column` counts from 1."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(f"column {column}: {message}")
        self.column = column


class ClaimBroken(Exception):
    """The claim could not be evaluated: a domain error or a value of the wrong type."""


@dataclass(frozen=True)
class Node:
    """An expression: kind is number, string, bool, name, negate, call or a binary operator."""

    kind: str
    value: Any = None
    children: tuple[Node, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Every name in the expression, in order of appearance."""
        return self._names

    @cached_property
    def _names(self) -> tuple[str, ...]:
        # A claim is read once and evaluated for every row.
        own = (self.value,) if self.kind == "name" else ()
        return own + tuple(name for child in self.children for name in child.names())


@dataclass(frozen=True)
class Comparison:
    """One comparison of a claim. `right` is a tuple of literals for `in`."""

    text: str
    op: str
    left: Node
    right: Node | tuple[Value, ...]

    def names(self) -> list[str]:
        """Every name on either side."""
        right = [] if isinstance(self.right, tuple) else list(self.right.names())
        return [*self.left.names(), *right]


@dataclass(frozen=True)
class Outcome:
    """A comparison with its values: always written as `observed op bound`."""

    text: str
    op: str
    observed: Any
    bound: Any
    unit: str
    slack: float | None
    margin: float | None
    holds: bool


@dataclass
class _Parser:
    text: str
    tokens: list[tuple[str, str, int, int]] = field(default_factory=list)
    position: int = 0
    depth: int = 0

    def __post_init__(self) -> None:
        at = 0
        stripped = self.text.rstrip()
        while at < len(stripped):
            match = _TOKEN.match(stripped, at)
            if match is None or match.lastgroup is None:
                rest = stripped[at:].lstrip()
                column = len(stripped) - len(rest) + 1
                raise ClaimSyntaxError(column, f"cannot read {rest[:12]!r}")
            kind = match.lastgroup
            self.tokens.append((kind, match[kind], match.start(kind), match.end(kind)))
            at = match.end()
        if len(self.tokens) > _MOST_TOKENS:
            column = self.tokens[_MOST_TOKENS][2] + 1
            raise ClaimSyntaxError(column, f"more than {_MOST_TOKENS} words: write several claims")

    @property
    def _next(self) -> tuple[str, str, int, int]:
        if self.position < len(self.tokens):
            return self.tokens[self.position]
        return ("end", "", len(self.text), len(self.text))

    def _take(self, *texts: str) -> str | None:
        kind, text, _, _ = self._next
        if kind != "string" and text in texts:
            self.position += 1
            return text
        return None

    def _need(self, text: str) -> None:
        if self._take(text) is None:
            raise self._unexpected(f"expected {text!r}")

    def _unexpected(self, wanted: str) -> ClaimSyntaxError:
        _, text, start, _ = self._next
        return ClaimSyntaxError(
            start + 1, f"{wanted}, found {text!r}" if text else f"{wanted} at the end"
        )

    def claim(self) -> list[Comparison]:
        comparisons = self._comparison()
        while self._take("and"):
            comparisons += self._comparison()
        if self._next[0] != "end":
            hint = (
                " (claims know `and` only: write two claims)"
                if self._next[1] in ("or", "not")
                else ""
            )
            raise self._unexpected(f"expected `and` or the end{hint}")
        return comparisons

    def _comparison(self) -> list[Comparison]:
        start = self._next[2]
        left = self._sum()
        if self._take("in"):
            return [self._member(start, left)]
        if (op := self._take("contains", "matches")) is not None:
            return [self._textual(start, op, left)]
        result = []
        while (op := self._take(*ORDER)) is not None:
            right = self._sum()
            result.append(Comparison(self._since(start), op, left, right))
            start, left = self._start_of_last_operand(), right
        if not result:
            raise self._unexpected("expected a comparison (< <= == >= > in contains matches)")
        return result

    def _start_of_last_operand(self) -> int:
        # The text of a later link of a chain starts at its own left operand.
        depth = 0
        for kind, text, _, end in reversed(self.tokens[: self.position]):
            depth += (text == ")") - (text == "(")
            if depth == 0 and kind == "op" and text in ORDER:
                return end
        raise AssertionError("a link of a chain follows a comparator")

    def _since(self, start: int) -> str:
        return self.text[start : self.tokens[self.position - 1][3]].strip()

    def _member(self, start: int, left: Node) -> Comparison:
        self._need("[")
        values = [self._literal()]
        while self._take(","):
            values.append(self._literal())
        self._need("]")
        return Comparison(self._since(start), "in", left, tuple(values))

    def _textual(self, start: int, op: str, left: Node) -> Comparison:
        kind, text, column, _ = self._next
        if kind != "string":
            raise self._unexpected(f"{op} needs a quoted text")
        self.position += 1
        if op == "matches":
            try:
                re.compile(text[1:-1])
            except (re.error, OverflowError, RecursionError) as error:
                raise ClaimSyntaxError(column + 1, f"not a regular expression: {error}") from None
        return Comparison(self._since(start), op, left, Node("string", text[1:-1]))

    def _literal(self) -> Value:
        node = self._factor()
        sign = 1
        if node.kind == "negate":
            node, sign = node.children[0], -1
        if node.kind not in ("number", "string", "bool"):
            raise self._unexpected("a list holds literals only")
        value: Value = node.value
        return -value if sign < 0 and not isinstance(value, str) else value

    def _sum(self) -> Node:
        node = self._product()
        while (op := self._take("+", "-")) is not None:
            node = Node(op, None, (node, self._product()))
        return node

    def _product(self) -> Node:
        node = self._factor()
        while (op := self._take("*", "/")) is not None:
            node = Node(op, None, (node, self._factor()))
        return node

    def _factor(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self._unexpected(f"nested deeper than {_DEEPEST}")
        if self._take("-"):
            node = Node("negate", None, (self._factor(),))
        else:
            node = self._atom()
            if self._take("**"):
                node = Node("**", None, (node, self._factor()))
        self.depth -= 1
        return node

    def _atom(self) -> Node:
        kind, text, start, _ = self._next
        if self._take("("):
            node = self._sum()
            self._need(")")
            return node
        if kind == "end" or kind == "op":
            raise self._unexpected("expected a value")
        self.position += 1
        if kind == "number":
            return Node("number", self._number(text, start))
        if kind == "string":
            return Node("string", text[1:-1])
        if text in ("true", "false"):
            return Node("bool", text == "true")
        if text in _FUNCTIONS:
            return self._call(text, start)
        if text in KEYWORDS:
            self.position -= 1
            raise self._unexpected("expected a value")
        if self._next[1] == "(":
            known = ", ".join(_FUNCTIONS)
            raise ClaimSyntaxError(start + 1, f"no function {text!r}, only {known}")
        return Node("name", text)

    def _number(self, text: str, start: int) -> int | float:
        if math.isinf(float(text)):
            raise ClaimSyntaxError(start + 1, f"{text[:12]} is beyond the largest number")
        return int(text) if text.isdigit() else float(text)

    def _call(self, function: str, start: int) -> Node:
        self._need("(")
        arguments = [self._sum()]
        while self._take(","):
            arguments.append(self._sum())
        self._need(")")
        least, most, _ = _FUNCTIONS[function]
        if not least <= len(arguments) <= most:
            takes = "1 argument" if most == 1 else f"{least} to {most} arguments"
            raise ClaimSyntaxError(start + 1, f"{function} takes {takes}")
        return Node("call", function, tuple(arguments))


def parse_claim(text: str) -> list[Comparison]:
    """The comparisons of a claim, chains taken apart.

    Raises:
        ClaimSyntaxError: the text is not of the grammar.
    """
    return _Parser(text).claim()


def kind_of(node: Node, kinds: Mapping[str, str]) -> str:
    """`number`, `text` or `boolean`, given the kinds of the names.

    Raises:
        ClaimSyntaxError: arithmetic on a text or a boolean.
    """
    if node.kind in ("number", "string", "bool"):
        return {"number": "number", "string": "text", "bool": "boolean"}[node.kind]
    if node.kind == "name":
        return kinds[node.value]
    for child in node.children:
        if (kind := kind_of(child, kinds)) != "number":
            raise ClaimSyntaxError(1, f"arithmetic on a {kind}")
    return "number"


def evaluate(
    comparison: Comparison, values: Mapping[str, Value], units: Mapping[str, str]
) -> Outcome:
    """Evaluate one comparison. `units` holds the unit of each measure; other names have none.

    Raises:
        ClaimBroken: a domain error, or an operand of the wrong type.
    """
    left = _value(comparison.left, values)
    right = comparison.right
    bound: Any = list(right) if isinstance(right, tuple) else _value(right, values)
    observed, op = left, comparison.op
    measured = next((n for n in comparison.left.names() if n in units), None)
    if measured is None and op in ORDER and isinstance(right, Node):
        observed, bound, op = bound, left, _MIRRORED[op]
        measured = next((n for n in right.names() if n in units), None)
    return _outcome(comparison.text, op, observed, bound, units.get(measured or "", ""))


def value_of(node: Node, values: Mapping[str, Value]) -> Any:
    """The value of one side of a comparison.

    Raises:
        ClaimBroken: a domain error, an operand of the wrong type, or a name without a value.
        OverflowError: a whole number beyond the largest float, with which nothing is compared.
        TypeError: no number, text or boolean.
    """
    value = _value(node, values)
    _finite(value)
    return value


def compare(op: str, observed: Any, bound: Any) -> bool:
    """Whether `observed op bound` holds; never where either is not finite."""
    if not (_finite(observed) and _finite(bound)):
        return False
    if op == "in":
        # 1 and 1.0 are one number; true is none.
        return any(
            isinstance(observed, bool) is isinstance(item, bool) and observed == item
            for item in bound
        )
    if op == "contains":
        return bound in observed
    if op == "matches":
        return re.search(bound, observed) is not None
    return _COMPARE[op](observed, bound)


def _outcome(text: str, op: str, observed: Any, bound: Any, unit: str) -> Outcome:
    numeric = _numeric(op, observed, bound)
    if op in ORDER and not numeric and (op != "==" or type(observed) is not type(bound)):
        raise ClaimBroken(f"{text}: cannot compare {observed!r} {op} {bound!r}")
    if op in ("contains", "matches") and not isinstance(observed, str):
        raise ClaimBroken(f"{text}: {observed!r} is no text")
    holds = compare(op, observed, bound)
    slack, margin = slack_and_margin(op, observed, bound)
    return Outcome(text, op, observed, bound, unit, slack, margin, holds)


def slack_and_margin(op: str, observed: Any, bound: Any) -> tuple[float | None, float | None]:
    """How far `observed` is on the right side of `bound`: absolute, and over the larger of the two.

    Negative where the comparison fails, NaN where a side is not finite. Only ordered numbers have a
    slack; a margin needs a finite slack and another operator than ``==``.
    """
    if not _numeric(op, observed, bound):
        return None, None
    slack = _slack(op, observed, bound)
    if op == "==" or not math.isfinite(slack):
        return slack, None
    largest = max(abs(observed), abs(bound))
    return slack, slack / largest if largest else 0.0


def _numeric(op: str, observed: Any, bound: Any) -> bool:
    return op in ORDER and _is_number(observed) and _is_number(bound)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _slack(op: str, observed: float, bound: float) -> float:
    if not (math.isfinite(observed) and math.isfinite(bound)):
        return math.nan
    if op == "==":
        return -abs(observed - bound)
    return float(bound - observed if op in ("<", "<=") else observed - bound)


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    return isinstance(value, str) or math.isfinite(value)


def _value(node: Node, values: Mapping[str, Value]) -> Any:
    if node.kind in ("number", "string", "bool"):
        return node.value
    if node.kind == "name":
        if node.value not in values:
            raise ClaimBroken(f"{node.value} was not measured")
        return values[node.value]
    operands = [_value(child, values) for child in node.children]
    if any(isinstance(operand, (str, bool)) for operand in operands):
        raise ClaimBroken(f"arithmetic on {operands!r}")
    try:
        return _arithmetic(node, operands)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ClaimBroken(f"{node.value or node.kind} of {operands!r}: {error}") from None


def _arithmetic(node: Node, operands: Sequence[float]) -> float:
    if not all(math.isfinite(operand) for operand in operands):
        return math.nan  # min(nan, 1) and 0 * inf must not lose the fault on the way
    match node.kind:
        case "negate":
            return -operands[0]
        case "call":
            return _FUNCTIONS[node.value][2](*operands)
        case "+":
            return operands[0] + operands[1]
        case "-":
            return operands[0] - operands[1]
        case "*":
            return operands[0] * operands[1]
        case "/":
            return operands[0] / operands[1]
    # Floats overflow at once, where integers would compute for years.
    power: float | complex = float(operands[0]) ** float(operands[1])
    if isinstance(power, complex):
        raise ValueError("a root of a negative number")
    return power
