"""The status of a gate, from the rows of its tests: the worst of what they show.

A test is DISCHARGED when every case at full scale held and every declared counter-example was
caught; PARTIAL_ALGORITHM_LEVEL when only all its cases at reduced scale held, those of one device
at least. All else is worse, and says why.

A counter-example that cannot be planted in the subject (source defects patch one trainer) stands in
nobody's way, provided that another one of the same test was caught; `why` names it all the same.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import IntEnum

from aprverify.evidence.records import Comparison, ContractRecord, GateRecord, Row, TestRecord


class Status(IntEnum):
    """Worst first, so that the worst of several is their `min`."""

    FALSIFIED = 0
    VACUOUS = 1
    BROKEN = 2
    STALE = 3
    PENDING = 4
    PARTIAL_ALGORITHM_LEVEL = 5
    DISCHARGED = 6


@dataclass(frozen=True)
class Closest:
    """The comparison that decides: the first that fails, else the held one nearest its bound.

    Of those that held a measurement comes before a count, which is where it always is.
    """

    test: str
    key: str
    comparison: Comparison


@dataclass(frozen=True)
class GateStatus:
    """What a gate's rows show; teeth count (test, defect) pairs.

    `why` holds what makes the status no better, and then the counter-examples that do not apply to
    the subject. It is empty for a gate that is DISCHARGED with all its teeth.
    """

    contract: str
    gate: str
    title: str
    ship_blocking: bool
    about: str
    allows_partial: bool
    status: Status
    closest: Closest | None
    teeth_caught: int
    teeth_declared: int
    why: list[str]

    @property
    def ships(self) -> bool:
        """DISCHARGED, or PARTIAL where the contract allows that."""
        partial = self.status is Status.PARTIAL_ALGORITHM_LEVEL and self.allows_partial
        return partial or self.status is Status.DISCHARGED


def gate_statuses(
    contracts: Sequence[ContractRecord],
    rows: Sequence[Row],
    stale_keys: AbstractSet[str] = frozenset(),
) -> list[GateStatus]:
    """Every gate of the contracts, in their order. `stale_keys`: rows whose files changed since."""
    tests = {test.id: test for contract in contracts for test in contract.tests}
    by_test: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_test[row.test].append(row)
    return [
        _gate_status(contract.id, gate, tests, by_test, stale_keys)
        for contract in contracts
        for gate in contract.gates
    ]


def _gate_status(
    contract: str,
    gate: GateRecord,
    tests: Mapping[str, TestRecord],
    by_test: Mapping[str, Sequence[Row]],
    stale_keys: AbstractSet[str],
) -> GateStatus:
    found: list[tuple[Status, str]] = []
    for name in gate.tests:
        if name in tests:
            found += _findings(tests[name], by_test.get(name, ()), stale_keys)
        else:
            found.append((Status.PENDING, f"{name}: no contract here declares it"))
    if not gate.tests:
        found.append((Status.PENDING, "the gate names no test"))
    status = min((status for status, _ in found), default=Status.DISCHARGED)
    ranked = sorted(found, key=lambda item: item[0])
    rows = [row for name in gate.tests for row in by_test.get(name, ())]
    known = [tests[name] for name in gate.tests if name in tests]
    return GateStatus(
        contract=contract,
        gate=gate.id,
        title=gate.title,
        ship_blocking=gate.ship_blocking,
        about=gate.about,
        allows_partial=gate.allows_partial,
        status=status,
        closest=_closest(rows),
        teeth_caught=sum(len(_caught(test, by_test.get(test.id, ()))) for test in known),
        teeth_declared=sum(len(test.counter_examples) for test in known),
        why=[why for rank, why in ranked if rank in (status, Status.DISCHARGED)],
    )


def _findings(
    test: TestRecord, rows: Sequence[Row], stale_keys: AbstractSet[str]
) -> Iterator[tuple[Status, str]]:
    """Everything that keeps the test from being discharged."""
    for row in rows:
        if row.outcome == "falsified":
            yield Status.FALSIFIED, f"{row.key} was falsified"
        elif row.outcome == "survived":
            yield Status.VACUOUS, f"{row.key}: the planted defect was not noticed"
        elif row.outcome in ("broken", "inconclusive"):
            yield (
                Status.BROKEN,
                f"{row.key}: {row.outcome}, {row.reason.detail if row.reason else ''}",
            )
    held = {row.case_id: row for row in rows if row.outcome == "held"}
    level, rests_on = _level(test, held)
    caught = _caught(test, rows)
    yield from _not_caught(test, rows, caught)
    yield from _stale(
        [*rests_on, *(_freshest(teeth, stale_keys) for teeth in caught.values())], stale_keys
    )
    if level is Status.PENDING:
        yield level, _missing(test, rows, held)
    elif level is Status.PARTIAL_ALGORITHM_LEVEL:
        yield level, f"{test.id}: held at reduced scale only"


def _level(test: TestRecord, held: Mapping[str, Row]) -> tuple[Status, list[Row]]:
    """How far the held cases reach, and the rows that this rests on."""
    full = [name for name, case in test.cases.items() if case.scale == "full"]
    if full and all(case in held for case in full):
        return Status.DISCHARGED, [held[case] for case in full]
    for device in dict.fromkeys(case.device for case in test.cases.values()):
        reduced = [n for n, c in test.cases.items() if (c.scale, c.device) == ("reduced", device)]
        if reduced and all(case in held for case in reduced):
            return Status.PARTIAL_ALGORITHM_LEVEL, [held[case] for case in reduced]
    return Status.PENDING, list(held.values())


def _missing(test: TestRecord, rows: Sequence[Row], held: Mapping[str, Row]) -> str:
    missing = [case for case in test.cases if case not in held]
    if not test.cases:
        return f"{test.id}: the test has no case"
    first = next((r for r in rows if r.kind == "claim" and r.case_id == missing[0]), None)
    reason = first.reason.detail if first and first.reason else "no row"
    return f"{test.id}: {len(missing)} of {len(test.cases)} cases open, {missing[0]}: {reason}"


def _stale(rests_on: Sequence[Row], stale_keys: AbstractSet[str]) -> Iterator[tuple[Status, str]]:
    stale = [row.key for row in rests_on if row.key in stale_keys]
    if stale:
        more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        yield Status.STALE, f"{stale[0]}{more}: the files it depends on changed since"


def _caught(test: TestRecord, rows: Sequence[Row]) -> dict[str, list[Row]]:
    caught: dict[str, list[Row]] = {}
    for row in rows:
        if row.outcome == "caught" and row.defect in test.counter_examples:
            caught.setdefault(row.defect, []).append(row)
    return caught


def _not_caught(
    test: TestRecord, rows: Sequence[Row], caught: Mapping[str, Sequence[Row]]
) -> Iterator[tuple[Status, str]]:
    for defect in test.counter_examples:
        if defect in caught:
            continue
        said = f"{test.id}: counter-example {defect}"
        if not _inapplicable([row for row in rows if row.defect == defect]):
            yield Status.PENDING, f"{said} was not planted"
        elif caught:
            yield Status.DISCHARGED, f"{said} does not apply to the subject"
        else:
            yield Status.PENDING, f"{said} does not apply to the subject, and no other was caught"


def _inapplicable(teeth: Sequence[Row]) -> bool:
    # A machine without the device was never asked whether the defect applies: its rows say nothing.
    asked = [row for row in teeth if row.reason is None or row.reason.kind != "device"]
    return bool(asked) and all(row.inapplicable for row in asked)


def _freshest(rows: Sequence[Row], stale_keys: AbstractSet[str]) -> Row:
    return next((row for row in rows if row.key not in stale_keys), rows[0])


def _closest(rows: Sequence[Row]) -> Closest | None:
    claims = [row for row in rows if row.kind == "claim"]
    for row in claims:
        for comparison in row.comparisons:
            if row.outcome == "falsified" and not comparison.holds:
                return Closest(row.test, row.key, comparison)
    held = [
        Closest(row.test, row.key, comparison)
        for row in claims
        if row.outcome == "held"
        for comparison in row.comparisons
    ]
    return min(held, key=lambda closest: _rank(closest.comparison), default=None)


def _rank(comparison: Comparison) -> tuple[bool, float]:
    # Texts and exact comparisons have no margin: they are shown only where nothing else is.
    if comparison.margin is None:
        return True, math.inf
    is_count = type(comparison.observed) is int and type(comparison.bound) is int
    return is_count, comparison.margin
