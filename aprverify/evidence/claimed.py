"""Whether a row compares what its contract claims, on the values that the row itself measured.

A comparison that fits its own numbers may still be another comparison: a milder operator, a bound
of one's own, a value that nothing measured. The run holds the claims and the measures, so all of
that shows; only bounds that come from constants and tolerances have to be believed, and those must
at least be the same in every row that rests on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aprverify.contract import claims
from aprverify.contract.claims import ORDER, ClaimBroken, ClaimSyntaxError, Node, parse_claim
from aprverify.evidence.records import VERDICTS, Comparison, Row, TestRecord
from aprverify.evidence.values import decode, encode

_MIRROR = str.maketrans("<>", "><")
_Side = Node | tuple[claims.Value, ...]


@dataclass(frozen=True)
class _Expected:
    """How a row has to write one comparison of a claim: turned as `claims.evaluate` turns it.

    `name` is the claim's id and the comparison's text, by which a row says which one it makes.
    """

    op: str
    observed: Node
    bound: _Side
    name: tuple[str, str]


class Claimed:
    """Holds the rows of one run against the claims of its contracts, row by row."""

    def __init__(self) -> None:
        self._bounds: dict[tuple[Any, ...], tuple[Any, str]] = {}
        self._expected: dict[tuple[str, ...], tuple[_Expected, ...]] = {}

    def faults(self, row: Row, test: TestRecord) -> Iterator[str]:
        """What is wrong with the row's comparisons, one sentence each."""
        # All rows of a test that measure the same are to compare the same.
        place = (test.id, *row.measures)
        if (expected := self._expected.get(place)) is None:
            try:
                expected = self._expected[place] = tuple(_expected(row, test))
            except _Unreadable as error:
                yield str(error)
                return
        wanted = [one.name for one in expected]
        found = [(comparison.claim, comparison.text) for comparison in row.comparisons]
        if found != wanted:
            if row.outcome in VERDICTS:
                yield f"{row.outcome}, but {_difference(found, wanted)}"
                return
            if strange := [pair for pair in found if pair not in wanted]:
                yield f"compares {strange[0][1]!r}, which claim {strange[0][0]} does not say"
                return
            by_name = dict(zip(wanted, expected, strict=True))
            expected = tuple(by_name[name] for name in found)
        known = {name: decode(value) for name, value in {**row.case, **row.measures}.items()}
        for recorded, one in zip(row.comparisons, expected, strict=True):
            yield from self._one(recorded, one, row, known)

    def _one(
        self, recorded: Comparison, expected: _Expected, row: Row, known: Mapping[str, Any]
    ) -> Iterator[str]:
        said = f"claim {recorded.claim}: {recorded.text}"
        if recorded.op != expected.op:
            yield f"{said}: the row compares by {recorded.op}, the claim by {expected.op}"
            return
        for which, side, value in (
            ("observed", expected.observed, recorded.observed),
            ("bound", expected.bound, recorded.bound),
        ):
            names = () if isinstance(side, tuple) else side.names()
            if known.keys() >= set(names):
                yield from _recomputed(said, which, side, value, known)
            elif row.measures.keys().isdisjoint(names):
                yield from self._same_everywhere(said, which, names, value, row)

    def _same_everywhere(
        self, said: str, which: str, names: tuple[str, ...], value: Any, row: Row
    ) -> Iterator[str]:
        # A tolerance hangs on the dtype, a field of a configuration on the architecture.
        deciding = [row.case.get(name) for name in ("dtype", "arch", *names)]
        place = (row.test, said, which, *deciding)
        first, key = self._bounds.setdefault(place, (value, row.key))
        if first != value and encode(first) != encode(value):
            yield f"{said}: {which} is {value!r}, and {first!r} in {key}"


class _Unreadable(Exception):
    """A claim of the contract is not of the grammar."""


def _expected(row: Row, test: TestRecord) -> Iterator[_Expected]:
    for name, expression in test.claims.items():
        try:
            comparisons = parse_claim(expression)
        except ClaimSyntaxError as error:
            raise _Unreadable(f"claim {name} of the contract cannot be read ({error})") from None
        for one in comparisons:
            observed, bound, op = _oriented(one.left, one.right, one.op, row.measures)
            yield _Expected(op, observed, bound, (name, one.text))


def _difference(found: list[tuple[str, str]], wanted: list[tuple[str, str]]) -> str:
    if missing := [text for name, text in wanted if (name, text) not in found]:
        return f"{missing[0]!r} was not compared"
    if strange := [text for name, text in found if (name, text) not in wanted]:
        return f"{strange[0]!r} is not what the contract claims"
    return "its comparisons are repeated, or in another order than the contract's"


def _oriented(
    left: Node, right: _Side, op: str, measures: Mapping[str, Any]
) -> tuple[Node, _Side, str]:
    """Observed side, bound side and operator, turned as `claims.evaluate` turns them."""
    measured = any(name in measures for name in left.names())
    if measured or op not in ORDER or isinstance(right, tuple):
        return left, right, op
    return right, left, op.translate(_MIRROR)


def _recomputed(
    said: str, which: str, side: _Side, value: Any, known: Mapping[str, Any]
) -> Iterator[str]:
    try:
        found: Any = list(side) if isinstance(side, tuple) else claims.value_of(side, known)
    except (ClaimBroken, TypeError, OverflowError) as error:
        yield f"{said}: {which} cannot be evaluated again ({error})"
        return
    if not _same(found, value, exact=isinstance(side, tuple) or not _transcendental(side)):
        yield f"{said}: {which} is {value!r}, but what the row measured makes {found!r}"


def _transcendental(side: Node) -> bool:
    return side.kind in ("call", "**") or any(_transcendental(child) for child in side.children)


def _same(found: Any, value: Any, exact: bool) -> bool:
    if isinstance(found, bool) is not isinstance(value, bool):
        return False
    if found == value or encode(found) == encode(value):
        return True
    # Logarithms and powers come from the C library, and two of those may differ in the last digit.
    numbers = isinstance(found, (int, float)) and isinstance(value, (int, float))
    return not exact and numbers and math.isclose(found, value, rel_tol=4 * 2**-52, abs_tol=0.0)
