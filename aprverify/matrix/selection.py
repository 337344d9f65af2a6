"""Which falsifiers are crossed with all defects, under which case, and in which order.

A falsifier is a column under one case: of those that held on the device, the one that took least.
It is *cheap* if it took less than `CHEAP` seconds and runs eagerly: compiled code would be made
anew under each defect. Others are columns only of a full matrix. Where a default matrix would not
come to its end in time, the dearest of the cheap are left out as well, whole columns each.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from aprverify.contract.model import Contract
from aprverify.evidence.crosses import Column
from aprverify.evidence.records import Row, Run
from aprverify.plan import Entry
from aprverify.plugin.in_process import FIXTURES, falsifier_of
from aprverify.plugin.state import State

CHEAP = 0.1
"""Seconds: tens of milliseconds, and no hundreds."""
LOT = 64
"""Crosses of one defect between two canaries."""
OVERHEAD = 0.004
"""Seconds for entering and leaving a defect, and its share of a canary."""


@dataclass(frozen=True)
class Lot:
    """Crosses of one defect, run in one go by one process."""

    defect: str
    keys: tuple[str, ...]


def columns_of(
    state: State, run: Run, device: str, full: bool
) -> tuple[list[Column], dict[str, str]]:
    """The falsifiers to cross as the rows of `run` say, and why each of the others is not."""
    columns, left_out = [], {}
    for contract in state.loaded.contracts:
        for test in contract.tests:
            rows = [row for row in run.rows if row.test == test.id and row.device == device]
            clean = [row for row in rows if row.kind == "claim" and row.outcome == "held"]
            entry = Entry(contract, test, test.cases[0])
            if why := _unfit(state, entry, device, rows, clean):
                left_out[test.id] = why
                continue
            best = min(_eager(clean, full), key=lambda row: row.seconds, default=None)
            if best is None:
                left_out[test.id] = "runs compiled code"
            elif best.seconds >= CHEAP and not full:
                left_out[test.id] = f"takes {best.seconds:.2g} s"
            else:
                columns.append(Column(test.id, best.case_id, best.seconds))
    return columns, left_out


def _unfit(
    state: State, entry: Entry, device: str, rows: Sequence[Row], clean: Sequence[Row]
) -> str:
    if not rows and any(case.device == device for case in entry.test.cases):
        return "has no row among the declared pairs"
    if not rows:
        return "has no case on this device"
    if not clean:
        return f"did not hold: {rows[0].outcome.replace('_', ' ')}"
    wanted = set(inspect.signature(falsifier_of(state.suite, entry)).parameters)
    if foreign := wanted - FIXTURES:
        return f"asks for {', '.join(sorted(foreign))}"
    return ""


def _eager(clean: Sequence[Row], full: bool) -> list[Row]:
    return [row for row in clean if full or not row.case.get("compiled", False)]


def lots_of(pairs: Mapping[str, Sequence[Column]], contracts: Iterable[Contract]) -> list[Lot]:
    """Everything to try, what matters most first: if time runs out, the rest is what is missing.

    First each defect under the falsifiers of the contracts that declare it, then by what they take.
    """
    contract_of = {test.id: contract.id for contract in contracts for test in contract.tests}
    owners = owners_of(contracts)
    bands: dict[tuple[int, str], list[str]] = {}
    for defect, columns in pairs.items():
        for column in columns:
            own = contract_of[column.test] in owners[defect]
            bands.setdefault((0 if own else _band(column.seconds), defect), []).append(column.key)
    order = {defect: place for place, defect in enumerate(pairs)}
    return [
        Lot(defect, tuple(keys[start : start + LOT]))
        for (_, defect), keys in sorted(bands.items(), key=lambda b: (b[0][0], order[b[0][1]]))
        for start in range(0, len(keys), LOT)
    ]


def owners_of(contracts: Iterable[Contract]) -> dict[str, set[str]]:
    """The contracts that declare each defect: those that it belongs to."""
    owners: dict[str, set[str]] = {}
    for contract in contracts:
        for test in contract.tests:
            for counter_example in test.counter_examples:
                owners.setdefault(counter_example.defect, set()).add(contract.id)
    return owners


def cost(pairs: Mapping[str, Sequence[Column]], workers: int) -> float:
    """Seconds that crossing will take, if defects make nothing slower."""
    each = (column.seconds + OVERHEAD for columns in pairs.values() for column in columns)
    return sum(each) / workers


def fitting(
    columns: Sequence[Column], never: Mapping[str, Set[str]], defects: int, processor_seconds: float
) -> list[Column]:
    """The cheapest columns that can be crossed in so much time, in their own order.

    Args:
        columns: with the seconds that their clean runs took just now.
        never: for each defect, the keys of the columns that never meet it.
        defects: how many there are.
        processor_seconds: of all workers together.
    """
    spared = Counter(key for keys in never.values() for key in keys)
    kept: set[str] = set()
    for column in sorted(columns, key=lambda column: column.seconds):
        processor_seconds -= (column.seconds + OVERHEAD) * (defects - spared[column.key])
        if processor_seconds < 0:
            break
        kept.add(column.key)
    return [column for column in columns if column.key in kept]


def _band(seconds: float) -> int:
    return 1 + sum(seconds >= limit for limit in (0.005, 0.02, 0.05, 0.1, 1.0))
