"""Several runs as one: which row speaks for an entry when more than one run has it.

Rows merge by key. A row that reached a verdict, or broke, outweighs one that did not run, since a
machine without the device says nothing about the entry. Then, given the present `source_id` of
each entry, a row about the present files outweighs one about other files; among equals the newest
counts. An entry is stale where the row that speaks for it is not about the present files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aprverify.evidence.records import VERDICTS, ContractRecord, Row, Run, instant


@dataclass(frozen=True)
class Origin:
    """A row and the run that it comes from."""

    row: Row
    run: Run


@dataclass(frozen=True)
class Merged:
    """The row of each entry.

    Attributes:
        contracts: as the newest run that has them wrote them, in that run's order.
        origins: the row that speaks for each key, and its run.
        stale_keys: keys whose row is not about the present files.
        conflicts: keys with different verdicts about the same files, and those verdicts.
        unseen: present keys that no run has a row of.
    """

    contracts: tuple[ContractRecord, ...]
    origins: Mapping[str, Origin]
    stale_keys: frozenset[str]
    conflicts: Mapping[str, tuple[str, ...]]
    unseen: frozenset[str]

    @property
    def rows(self) -> list[Row]:
        """The rows alone."""
        return [origin.row for origin in self.origins.values()]


def merge_runs(runs: Sequence[Run], current: Mapping[str, str] | None) -> Merged:
    """Merge runs by row key. `current`: the present source_id by key; None: do not judge that."""
    ordered = sorted(runs, key=lambda run: (instant(run.header.started), run.header.run_id))
    contracts = _contracts(ordered)
    candidates = candidates_by_key(ordered, contracts)
    origins = {key: speaker(found, current) for key, found in candidates.items()}
    return Merged(
        contracts=contracts,
        origins=origins,
        stale_keys=frozenset(
            key
            for key, origin in origins.items()
            if current is not None and current.get(key) != origin.row.source_id
        ),
        conflicts=_conflicts(candidates),
        unseen=frozenset(current or ()) - origins.keys(),
    )


def candidates_by_key(
    runs: Sequence[Run], contracts: Sequence[ContractRecord]
) -> dict[str, list[Origin]]:
    """Every row of every entry that the contracts declare, in the order of the runs."""
    declared = _declared_keys(contracts)
    candidates: dict[str, list[Origin]] = defaultdict(list)
    for run in runs:
        for row in run.rows:
            if row.key in declared:
                candidates[row.key].append(Origin(row, run))
    return candidates


def speaker(found: Sequence[Origin], current: Mapping[str, str] | None) -> Origin:
    """The row that speaks for an entry, of at least one."""

    def weight(origin: Origin) -> tuple[bool, bool]:
        row = origin.row
        present = current is not None and current.get(row.key) == row.source_id
        return row.outcome != "not_run", present

    best = max(weight(origin) for origin in found)
    newest_first = sorted(found, key=lambda origin: instant(origin.row.started), reverse=True)
    return next(origin for origin in newest_first if weight(origin) == best)


def _contracts(ordered: Sequence[Run]) -> tuple[ContractRecord, ...]:
    contracts: dict[str, ContractRecord] = {}
    for run in reversed(ordered):
        for contract in run.contracts:
            contracts.setdefault(contract.id, contract)
    return tuple(contracts.values())


def _declared_keys(contracts: Sequence[ContractRecord]) -> set[str]:
    # Old runs have rows of cases and counter-examples that a later contract dropped.
    keys = set()
    for contract in contracts:
        for test in contract.tests:
            for case in test.cases:
                keys.add(f"{test.id}[{case}]")
                keys.update(f"{test.id}[{case}]!{defect}" for defect in test.counter_examples)
    return keys


def _conflicts(candidates: Mapping[str, Sequence[Origin]]) -> dict[str, tuple[str, ...]]:
    conflicts = {}
    for key, found in candidates.items():
        for disagreeing in disagreements(found).values():
            conflicts[key] = tuple(sorted({origin.row.outcome for origin in disagreeing}))
    return conflicts


def disagreements(found: Sequence[Origin]) -> dict[str, list[Origin]]:
    """By source_id, the rows of one entry whose verdicts differ although the files are the same."""
    verdicts: dict[str, list[Origin]] = defaultdict(list)
    for origin in found:
        if origin.row.outcome in VERDICTS:
            verdicts[origin.row.source_id].append(origin)
    return {
        source: origins
        for source, origins in verdicts.items()
        if len({origin.row.outcome for origin in origins}) > 1
    }


def worse(disagreeing: Sequence[Origin]) -> Origin:
    """The one that failed, where verdicts about the same files differ."""
    return next(o for o in disagreeing if o.row.outcome in ("falsified", "survived"))
