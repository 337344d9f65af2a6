"""What differs between two runs: gates, outcomes, margins and contracts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from aprverify.evidence.closest import nearest_first
from aprverify.evidence.records import Run
from aprverify.evidence.status import Status, gate_statuses

_K = TypeVar("_K", str, tuple[str, str])
_V = TypeVar("_V", str, Status)
_Pairs = dict[_K, tuple[_V | None, _V | None]]
_SHRUNK = 0.1
"""A margin that lost this share of its tolerance, or more, is told."""


@dataclass(frozen=True)
class Changes:
    """From an earlier run to a later one; None is what a side does not have.

    Attributes:
        gates: (contract, gate) to its two statuses, where they differ.
        outcomes: key to its two outcomes, where they differ.
        margins: key to its smallest margins in tolerances, where the later one is much smaller.
        contracts: path to its two hashes, where they differ.
    """

    gates: Mapping[tuple[str, str], tuple[Status | None, Status | None]]
    outcomes: Mapping[str, tuple[str | None, str | None]]
    margins: Mapping[str, tuple[float, float]]
    contracts: Mapping[str, tuple[str | None, str | None]]


def changes_between(earlier: Run, later: Run) -> Changes:
    """What changed, in the order of names."""
    before, after = _margins(earlier), _margins(later)
    return Changes(
        gates=_differing(_gates(earlier), _gates(later)),
        outcomes=_differing(_outcomes(earlier), _outcomes(later)),
        margins={
            key: (before[key], after[key])
            for key in sorted(before.keys() & after.keys())
            if before[key] - after[key] >= _SHRUNK
        },
        contracts=_differing(
            {c.path: c.sha256 for c in earlier.contracts},
            {c.path: c.sha256 for c in later.contracts},
        ),
    )


def _differing(before: Mapping[_K, _V], after: Mapping[_K, _V]) -> _Pairs[_K, _V]:
    keys = sorted(before.keys() | after.keys())
    pairs = {key: (before.get(key), after.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _gates(run: Run) -> dict[tuple[str, str], Status]:
    return {(g.contract, g.gate): g.status for g in gate_statuses(run.contracts, run.rows)}


def _outcomes(run: Run) -> dict[str, str]:
    return {row.key: row.outcome for row in run.rows}


def _margins(run: Run) -> dict[str, float]:
    smallest: dict[str, float] = {}
    for near in nearest_first(run.rows):
        if near.margin is not None:
            smallest.setdefault(near.row.key, near.margin)
    return smallest
