"""How a claim's observed value and margin went from run to run, as data for tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aprverify.evidence.provenance import where
from aprverify.evidence.records import Comparison, Row, Run, TestRecord, instant
from aprverify.evidence.values import encode


@dataclass(frozen=True)
class Point:
    """One comparison in one run; its values are None where the entry made no comparison there.

    `used` is the share of the bound that is used: 1 at the bound, above 1 beyond it; None where
    the comparison has no margin.
    """

    run_id: str
    started: str
    machine: str
    source_id: str
    outcome: str
    observed: Any
    bound: Any
    margin: float | None
    used: float | None


@dataclass(frozen=True)
class Series:
    """One comparison of one entry over the runs, oldest first."""

    key: str
    claim: str
    text: str
    unit: str
    points: tuple[Point, ...]


def in_time_order(runs: Sequence[Run]) -> list[Run]:
    """Oldest first, whatever order they were named in; one run named twice counts once."""
    once = {run.sha256: run for run in runs}.values()
    return sorted(once, key=lambda run: (instant(run.header.started), run.header.run_id))


def history(runs: Sequence[Run], identity: str) -> list[Series]:
    """The series of a contract, gate, invariant, test, family or entry; empty for an unknown one.

    An entry with a planted defect is named in full; all other names mean the clean entries.
    """
    ordered = in_time_order(runs)
    rows = [{row.key: row for row in _rows(run, identity)} for run in ordered]
    machines = [{e.id: where(e) for e in run.environments} for run in ordered]
    seen: dict[tuple[str, str, str], str] = {}
    for found in rows:
        for row in found.values():
            for c in row.comparisons:
                seen.setdefault((row.key, c.claim, c.text), c.unit)
    return [
        Series(key, claim, text, unit, tuple(_points(ordered, rows, machines, key, claim, text)))
        for (key, claim, text), unit in seen.items()
    ]


def known_names(runs: Sequence[Run]) -> set[str]:
    """Every name that `history` knows, entries aside."""
    names: set[str] = set()
    for run in runs:
        for contract in run.contracts:
            names |= {contract.id, *(gate.id for gate in contract.gates)}
            for test in contract.tests:
                names |= {test.id, _family(test), *test.invariants}
    return names


def used_share(comparison: Comparison) -> float | None:
    """The share of the bound that is used, from the margin."""
    return None if comparison.margin is None else 1.0 - comparison.margin


def _rows(run: Run, identity: str) -> Iterator[Row]:
    tests = set(_tests(run, identity))
    for row in run.rows:
        if row.key == identity or (row.kind == "claim" and row.test in tests):
            yield row


def _tests(run: Run, identity: str) -> Iterator[str]:
    for contract in run.contracts:
        gated = {t for gate in contract.gates if gate.id == identity for t in gate.tests}
        for test in contract.tests:
            names = {contract.id, test.id, _family(test), *test.invariants}
            if identity in names or test.id in gated:
                yield test.id


def _family(test: TestRecord) -> str:
    return test.id.partition(".")[0]


def _points(
    runs: Sequence[Run],
    rows: Sequence[dict[str, Row]],
    machines: Sequence[dict[str, str]],
    key: str,
    claim: str,
    text: str,
) -> Iterator[Point]:
    for run, found, names in zip(runs, rows, machines, strict=True):
        row = found.get(key)
        if row is None:
            continue
        made = next((c for c in row.comparisons if (c.claim, c.text) == (claim, text)), None)
        yield Point(
            run_id=run.header.run_id,
            started=row.started,
            machine=names[row.environment],
            source_id=row.source_id,
            outcome=row.outcome,
            observed=None if made is None else encode(made.observed),
            bound=None if made is None else encode(made.bound),
            margin=None if made is None else made.margin,
            used=None if made is None else used_share(made),
        )
