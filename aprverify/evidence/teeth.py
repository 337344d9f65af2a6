"""Which planted defects a run caught, by test and defect: what makes a pass worth something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from aprverify.evidence.markdown import details, escape, table
from aprverify.evidence.records import Row, Run

_SHOWN = 16

WORDS = {
    "survived": "**survived**",
    "broken": "broken",
    "not_run": "not run",
    "inapplicable": "does not apply",
    "caught": "caught",
}
"""Outcomes of a pair, worst first, as a reader is told them."""


@dataclass(frozen=True)
class Pair:
    """A test with a defect that it declares to catch. `outcomes`: by device, counts of cases."""

    test: str
    defect: str
    outcomes: dict[str, Counter[str]]

    @property
    def overall(self) -> str:
        """One outcome for all its cases; `absent` where the run has none of them.

        As a gate judges it: one survivor spoils it, and one case in which it was caught is enough.
        """
        seen: Counter[str] = sum(self.outcomes.values(), Counter())
        order = ("survived", "broken", "caught", "inapplicable", "not_run")
        return next((outcome for outcome in order if seen[outcome]), "absent")


def pairs_of(run: Run) -> list[Pair]:
    """Every declared pair of the tests that some row is about, in the order of the contracts."""
    touched = {row.test for row in run.rows}
    found: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    for row in run.rows:
        if row.defect is not None:
            devices = found.setdefault((row.test, row.defect), {})
            devices.setdefault(row.device, Counter())[_outcome(row)] += 1
    return [
        Pair(test.id, defect, found.get((test.id, defect), {}))
        for contract in run.contracts
        for test in contract.tests
        if test.id in touched
        for defect in test.counter_examples
    ]


def _outcome(row: Row) -> str:
    return "inapplicable" if row.inapplicable else row.outcome


def teeth_lines(run: Run) -> list[str]:
    """A line a contract, and every test and every pair on a click."""
    teeth = [row for row in run.rows if row.kind == "teeth"]
    if not teeth:
        return ["No defect was planted in this run."]
    devices = sorted({row.device for row in teeth})
    pairs = pairs_of(run)
    contract_of = {test.id: contract.id for contract in run.contracts for test in contract.tests}
    by_contract: dict[str, list[Pair]] = {}
    by_test: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_contract.setdefault(contract_of[pair.test], []).append(pair)
        by_test.setdefault(pair.test, []).append(pair)
    return [
        "Planted defects by contract, each under every case that is named for it. A defect counts "
        "as caught only if its code was reached, changed an output and left nothing behind.",
        "",
        *_by_contract(_counts("contract", by_contract, devices)),
        "",
        *details(f"every test ({len(by_test)})", _counts("test", by_test, devices)),
        "",
        *details(f"every test with every defect ({len(pairs)} pairs)", _every(by_test, devices)),
    ]


def _by_contract(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _SHOWN else details("every contract", lines)


def _counts(of: str, groups: dict[str, list[Pair]], devices: Sequence[str]) -> list[str]:
    cells = (
        [escape(name), *(_told(_sum(members, device)) for device in devices)]
        for name, members in groups.items()
    )
    return table((of, *devices), cells)


def _every(by_test: dict[str, list[Pair]], devices: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for test, pairs in by_test.items():
        cells = (
            [escape(pair.defect), *(_told(pair.outcomes.get(device)) for device in devices)]
            for pair in pairs
        )
        lines += [f"**{escape(test)}**", "", *table(("planted defect", *devices), cells), ""]
    return lines[:-1]


def _sum(pairs: Sequence[Pair], device: str) -> Counter[str] | None:
    found = [pair.outcomes[device] for pair in pairs if device in pair.outcomes]
    return sum(found, Counter()) if found else None


def _told(outcomes: Counter[str] | None) -> str:
    if outcomes is None:
        return "–"
    told = (f"{word} {outcomes[name]}" for name, word in WORDS.items() if outcomes[name])
    return ", ".join(told)
