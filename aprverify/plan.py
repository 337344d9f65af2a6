"""Contracts → entries, in a stable order. An entry is one thing to run and leaves one row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aprverify.contract.model import (
    GPUS_ALONE,
    Case,
    Contract,
    CounterExample,
    FalsificationTest,
)

TEETH = ("none", "declared")
LANES = ("all", "cpu", "cuda", GPUS_ALONE)


@dataclass(frozen=True)
class Entry:
    """A test under one case, clean or with one defect planted."""

    contract: Contract
    test: FalsificationTest
    case: Case
    defect: str | None = None

    @property
    def key(self) -> str:
        """The identity of the entry's row, equal on every machine."""
        return f"{self.test.id}[{self.case.id}]" + (f"!{self.defect}" if self.defect else "")

    @property
    def parameter_id(self) -> str:
        """What stands in the brackets of the pytest node id."""
        return f"{self.test.id}-{self.case.id}" + (f"!{self.defect}" if self.defect else "")

    @property
    def kind(self) -> str:
        """``claim`` or ``teeth``."""
        return "teeth" if self.defect else "claim"

    @property
    def device(self) -> str:
        """The device that the case asks for: ``cpu`` or ``cuda``."""
        return str(self.case.device)

    @property
    def ids(self) -> frozenset[str]:
        """Every identifier under which a person may look for this entry."""
        gates = {gate.id for gate in self.contract.gates_of(self.test)}
        names = {self.contract.id, self.test.id, self.test.family, self.test.function}
        return frozenset(names | gates | set(self.test.invariants))


def make_plan(contracts: Iterable[Contract], *, teeth: str, lane: str = "all") -> list[Entry]:
    """All entries of the contracts, each test's clean cases before its teeth."""
    entries = []
    for contract in contracts:
        for test in contract.tests:
            entries += [Entry(contract, test, case) for case in test.cases]
            if teeth == "declared":
                entries += _teeth(contract, test)
    return [entry for entry in entries if lane in ("all", entry.case.lane)]


def cases_for(test: FalsificationTest, counter_example: CounterExample) -> Iterator[Case]:
    """The cases a counter-example is planted under: the first that matches, for each device."""
    devices: set[str] = set()
    for case in test.cases:
        if case.device not in devices and case.matches(counter_example.where):
            devices.add(str(case.device))
            yield case


def _teeth(contract: Contract, test: FalsificationTest) -> list[Entry]:
    return [
        Entry(contract, test, case, counter_example.defect)
        for counter_example in test.counter_examples
        for case in cases_for(test, counter_example)
    ]
