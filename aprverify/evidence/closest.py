"""How near to failing a comparison came, in units of its own tolerance.

A margin of 1 says that nothing of the tolerance was used, 0 that the value stands at its bound,
and -2 that it is two tolerances beyond. Where a value is bounded on both sides, its tolerance is
half of what lies between: of a band around a large number, one end says nothing by its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aprverify.evidence.records import Comparison, Row

_UPPER, _LOWER = ("<", "<="), (">", ">=")
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True)
class Near:
    """A comparison with its margin in units of the tolerance; None where it has no tolerance."""

    margin: float | None
    row: Row
    comparison: Comparison

    @property
    def counts_to_its_bound(self) -> bool:
        """Whether a whole number stands where its bound allows it, as in ``9 of at most 9``.

        Counts have no noise, so that says nothing of how near to failing the claim came.
        """
        sides = (self.comparison.observed, self.comparison.bound)
        return self.margin == 0 and all(type(side) is int for side in sides)

    @property
    def is_measured(self) -> bool:
        """Whether it compares a measurement with a tolerance: not two counts, nor anything exact.

        A count that stands a step from its floor, as ``2 of at least 1``, is where it always is.
        """
        sides = (self.comparison.observed, self.comparison.bound)
        return self.margin is not None and not all(type(side) is int for side in sides)


def tolerance_margin(comparison: Comparison, beside: Sequence[Comparison]) -> float | None:
    """The margin of a comparison in units of its tolerance; `beside`: all of the same entry.

    None for texts, for exact comparisons and where a value is not finite.
    """
    if comparison.margin is None or comparison.slack is None:
        return None
    if not math.isfinite(comparison.margin):
        return None
    half = _half_band(comparison, beside)
    if half is not None:
        # Bounds that meet leave no tolerance: the claim is exact.
        return comparison.slack / half if half else None
    observed, bound = comparison.observed, comparison.bound
    if observed == bound == 0:
        return None  # exactly nothing, where nothing is allowed: there is no tolerance to use up
    if comparison.op in _UPPER and observed >= 0 and bound > 0:
        return float(1 - observed / bound)
    if comparison.op in _LOWER and observed > 0 and bound >= 0:
        return float(1 - bound / observed)
    return comparison.margin


def _half_band(comparison: Comparison, beside: Sequence[Comparison]) -> float | None:
    """Half of the distance to the nearest bound on the other side; None where there is none."""
    opposite = _LOWER if comparison.op in _UPPER else _UPPER
    halves = [
        abs(comparison.bound - other.bound) / 2
        for other in beside
        if other.op in opposite
        and (_measured(other), other.observed) == (_measured(comparison), comparison.observed)
        and math.isfinite(other.bound)
    ]
    return min(halves, default=None)


def _measured(comparison: Comparison) -> str:
    """What is bounded, as the contract writes it: two claims may bound it, one on each side."""
    left, _, right = comparison.text.partition(f" {comparison.op} ")
    if right:
        return left
    # A bound that is written first is recorded with the operator turned around.
    return comparison.text.rpartition(f" {_MIRRORED.get(comparison.op, comparison.op)} ")[2]


def nearest_first(rows: Iterable[Row]) -> list[Near]:
    """Every comparison with a tolerance of the claims that held, the smallest margin first."""
    return nearest(row for row in rows if row.outcome == "held")


def nearest(rows: Iterable[Row]) -> list[Near]:
    """The same of every claim that reached a verdict: what failed comes first.

    Counts that reach their bound are left out.
    """
    claims = (row for row in rows if row.outcome in ("held", "falsified"))
    found = (near for row in claims for near in _of(row))
    told = (near for near in found if near.margin is not None and not near.counts_to_its_bound)
    return sorted(told, key=_order)


def deciding(rows: Sequence[Row]) -> Near | None:
    """What decides: the first comparison that fails, else the measurement nearest to failing.

    Of counts the one nearest to failing is taken only where nothing was measured.
    """
    claims = sorted((row for row in rows if row.kind == "claim"), key=lambda row: row.key)
    for row in claims:
        if row.outcome == "falsified":
            return next(near for near in _of(row) if not near.comparison.holds)
    held = [near for row in claims if row.outcome == "held" for near in _of(row)]
    return min(held, key=lambda near: (not near.is_measured, _order(near)), default=None)


def _of(row: Row) -> list[Near]:
    return [Near(tolerance_margin(c, row.comparisons), row, c) for c in row.comparisons]


def _order(near: Near) -> tuple[float, str, str]:
    # What has no tolerance comes last: it is shown only where nothing else is.
    without = near.margin is None or near.counts_to_its_bound
    margin = math.inf if without or near.margin is None else near.margin
    return margin, near.row.key, near.comparison.text
