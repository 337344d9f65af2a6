"""Failed claims of a run, told so that what has one cause is told once."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from aprverify.evidence.closest import tolerance_margin
from aprverify.evidence.localized import places
from aprverify.evidence.markdown import count, observed_and_bound
from aprverify.evidence.records import ContractRecord, Row, Run, TestRecord, instant
from aprverify.evidence.reproduction import options
from aprverify.evidence.values import encode
from aprverify.explain.divergence import divergence
from aprverify.explain.planted import Cause, Planted, claim_key
from aprverify.explain.reproduce import reproduction
from aprverify.explain.story import (
    Behind,
    Broken,
    FailedTest,
    Failure,
    Surroundings,
)

_TOLD = 3
_LEVEL = 0.02
"""Causes whose likeness differs by no more are not told apart."""


@dataclass
class _Group:
    """Failed entries with the causes of each; one cause, as far as can be told."""

    rows: list[Row]
    causes: dict[str, list[Cause]] = field(default_factory=dict)
    already_there: set[str] = field(default_factory=set)


class Failures:
    """Tells the falsified claims of one run. `commands`: what else this build can do."""

    def __init__(self, run: Run, evidence: Sequence[Run], commands: AbstractSet[str]) -> None:
        self._run = run
        self._evidence = evidence
        self._commands = commands
        self._planted = Planted([run, *evidence])
        self._tests: dict[str, tuple[ContractRecord, TestRecord]] = {
            test.id: (contract, test) for contract in run.contracts for test in contract.tests
        }
        self._claims: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(run.rows, key=lambda row: row.key):
            if row.kind == "claim":
                self._claims[row.test].append(row)
        self._held = {row.key: row for row in run.rows if row.outcome == "held"}

    def told(self, keys: AbstractSet[str] | None = None) -> list[Failure]:
        """Every group of failures, the largest first; `keys`: only those that hold one of these."""
        groups = self._groups()
        chosen = [g for g in groups if keys is None or any(row.key in keys for row in g.rows)]
        ordered = sorted(chosen, key=lambda g: (-len(g.rows), min(row.key for row in g.rows)))
        return [self._failure(group, keys or frozenset()) for group in ordered]

    def _groups(self) -> list[_Group]:
        by_symptom: dict[tuple[str, tuple[str, ...]], _Group] = {}
        for rows in self._claims.values():
            for row in rows:
                if row.outcome == "falsified":
                    place = (row.test, tuple(c.text for c in row.comparisons if not c.holds))
                    group = by_symptom.setdefault(place, _Group([]))
                    group.rows.append(row)
                    group.causes[row.key] = self._causes(row)
        merged: list[_Group] = []
        for group in by_symptom.values():
            group.already_there = self._already_there({row.test for row in group.rows})
            mine = _suspects(group)
            same = [other for other in merged if mine & _suspects(other)]
            merged = [other for other in merged if other not in same]
            merged.append(_joined([*same, group]))
        return merged

    def _causes(self, row: Row) -> list[Cause]:
        found = (
            replace(cause, ruled_out_by=self._rules_out(cause.defect))
            for cause in self._planted.causes(row)
        )
        return sorted(found, key=_order)

    def _rules_out(self, defect: str) -> str | None:
        """An entry that held in this run although this defect is known to make it fail."""
        keys = sorted(claim_key(origin.row) for origin in self._planted.of(defect))
        return next((key for key in keys if key in self._held), None)

    # -- one group ------------------------------------------------------------------------

    def _failure(self, group: _Group, keys: AbstractSet[str]) -> Failure:
        rows = sorted(group.rows, key=lambda row: _cost(row, keys))
        lead = rows[0]
        tests = list(dict.fromkeys(row.test for row in rows))
        pooled = _pooled(group)
        return Failure(
            key=lead.key,
            tests=tuple(self._failed_test(name, rows) for name in tests),
            behind=tuple(_behind(self._tests[name][0] for name in tests)),
            surroundings=self._surroundings(tests),
            causes=tuple(pooled[:_TOLD]),
            compared=len(pooled),
            already_there=tuple(sorted(group.already_there)),
            reproduction=reproduction(self._run, lead),
            next=tuple(self._next(lead)),
        )

    def _failed_test(self, name: str, rows: Sequence[Row]) -> FailedTest:
        contract, test = self._tests[name]
        failed = [row for row in rows if row.test == name]
        held = [row for row in self._claims[name] if row.outcome == "held"]
        line = f":{test.line}" if test.line else ""
        return FailedTest(
            contract=contract.id,
            test=name,
            rule=test.title,
            invariants=tuple(_with_rule(name, contract.invariants) for name in test.invariants),
            if_fails=test.if_fails,
            place=f"{contract.path}{line}",
            failed=tuple(sorted(row.key for row in failed)),
            held_cases=len(held),
            only_with=tuple(_only_with(failed, held)),
            told_by=failed[0].key,
            broken=tuple(_broken(failed[0], test)),
            held_claims=_held_claims(failed[0], test),
            divergence=tuple(divergence(failed[0], self._planted.clean(failed[0]))),
            first_at_fault=tuple(_first_at_fault(failed)),
        )

    def _surroundings(self, tests: Sequence[str]) -> Surroundings:
        contracts = {self._tests[name][0].id for name in tests}
        failed = {
            n for n, rows in self._claims.items() if any(r.outcome == "falsified" for r in rows)
        }
        held = [name for name, rows in self._claims.items() if _all_held(rows)]
        elsewhere = [name for name in held if self._tests[name][0].id not in contracts]
        others = sorted(failed - set(tests))
        return Surroundings(
            failed_same=tuple(n for n in others if self._tests[n][0].id in contracts),
            failed_other=tuple(n for n in others if self._tests[n][0].id not in contracts),
            held_same=tuple(n for n in held if self._tests[n][0].id in contracts),
            held_other=(len(elsewhere), len({self._tests[n][0].id for n in elsewhere})),
        )

    def _already_there(self, tests: AbstractSet[str]) -> set[str]:
        """Defects that were reached in the failed tests and changed nothing, though they can."""
        found = {
            row.defect
            for row in self._run.rows
            if row.test in tests and row.defect and row.outcome == "broken" and row.plant
            if row.plant.reached and not row.plant.changed
        }
        return {defect for defect in found if self._planted.of(defect)}

    def _next(self, lead: Row) -> Iterator[str]:
        if "localize" in self._commands:
            asked = [lead.test, f"--case={lead.case_id}", *options(self._run, lead)]
            yield shlex.join(["aprverify", "localize", *asked])
        good, bad = self._last_good(lead), self._run.header.source.commit
        if "bisect" in self._commands and good and bad and good != bad:
            yield f"aprverify bisect {good} {bad} {lead.test}"
        yield f"aprverify list {lead.test}"

    def _last_good(self, lead: Row) -> str | None:
        """The commit of the newest clean checkout in which the entry held."""
        good = [
            (instant(run.header.started), run.header.source.commit)
            for run in self._evidence
            if run.header.source.commit and not run.header.source.dirty
            if any(row.key == lead.key and row.outcome == "held" for row in run.rows)
        ]
        return max(good)[1] if good else None


def _joined(groups: Sequence[_Group]) -> _Group:
    joined = _Group([])
    for group in groups:
        joined.rows += group.rows
        joined.causes |= group.causes
        joined.already_there |= group.already_there
    return joined


def _suspects(group: _Group) -> set[str]:
    """The defects that it may be: what the trainer has already, or else what it looks most like."""
    if group.already_there:
        return group.already_there
    pooled = [cause for cause in _pooled(group) if cause.alike]
    return {c.defect for c in pooled if pooled[0].likeness - c.likeness <= _LEVEL}


def _pooled(group: _Group) -> list[Cause]:
    """The causes of all tests of a group as one list, each with its mean likeness."""
    found: dict[str, list[Cause]] = defaultdict(list)
    for causes in group.causes.values():
        for cause in causes:
            found[cause.defect].append(cause)
    means = [
        replace(
            max(causes, key=lambda cause: (cause.likeness, cause.key)),
            likeness=sum(cause.likeness for cause in causes) / len(causes),
        )
        for causes in found.values()
    ]
    return sorted(means, key=_order)


def _order(cause: Cause) -> tuple[bool, float, str]:
    return cause.ruled_out_by is not None, -cause.likeness, cause.defect


def _cost(row: Row, keys: AbstractSet[str]) -> tuple[bool, bool, bool, str]:
    return row.key not in keys, row.scale != "reduced", row.device != "cpu", row.key


def _all_held(rows: Iterable[Row]) -> bool:
    ran = [row.outcome for row in rows if row.outcome != "not_run"]
    return bool(ran) and set(ran) == {"held"}


def _only_with(failed: Sequence[Row], held: Sequence[Row]) -> Iterator[str]:
    """Parameters of the case that tell the failed entries from those that held."""
    if not held:
        return
    for name in failed[0].case:
        bad = {str(row.case.get(name)) for row in failed}
        good = {str(row.case.get(name)) for row in held}
        if not bad & good:
            yield f"{name}={'|'.join(sorted(bad))} (held with {'|'.join(sorted(good))})"


def _behind(contracts: Iterable[ContractRecord]) -> Iterator[Behind]:
    for contract in {contract.id: contract for contract in contracts}.values():
        yield Behind(contract.id, contract.motivation, contract.references)


def _with_rule(invariant: str, rules: Mapping[str, str]) -> str:
    return f"{invariant}: {rules[invariant]}" if invariant in rules else invariant


def _broken(row: Row, test: TestRecord) -> Iterator[Broken]:
    for comparison in row.comparisons:
        if not comparison.holds:
            observed, bound = observed_and_bound(comparison)
            margin = tolerance_margin(comparison, row.comparisons)
            yield Broken(
                claim=comparison.claim,
                claimed=test.claims[comparison.claim],
                text=comparison.text,
                observed=observed,
                bound=bound,
                margin=None if margin is None else encode(margin),
            )


def _first_at_fault(failed: Sequence[Row]) -> Iterator[str]:
    for place in places(failed):
        cases = f" (in {count(len(place.rows), 'case')})" if len(failed) > 1 else ""
        yield f"{place.said}{cases}"


def _held_claims(row: Row, test: TestRecord) -> tuple[str, ...]:
    failed = {c.claim for c in row.comparisons if not c.holds}
    return tuple(name for name in test.claims if name not in failed)
