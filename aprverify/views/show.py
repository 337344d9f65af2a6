"""One id for a terminal: claims, cases, falsifier, the teeth, and the last evidence of each."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from aprverify.evidence.closest import nearest_first
from aprverify.evidence.markdown import observed_and_bound
from aprverify.evidence.merge import Merged, Origin
from aprverify.evidence.provenance import where
from aprverify.evidence.records import ContractRecord, TestRecord
from aprverify.evidence.status import gate_statuses
from aprverify.evidence.terminal import one_line

_WIDTH = 100
_MARGINS_SHOWN = 3


def ids_of(contract: ContractRecord, test: TestRecord) -> set[str]:
    """Every id under which the test is found."""
    gates = {gate.id for gate in contract.gates if test.id in gate.tests}
    return {contract.id, test.id, test.id.partition(".")[0], *test.invariants} | gates


def render_show(identity: str, contracts: Sequence[ContractRecord], merged: Merged) -> str:
    """What the contracts claim under `identity`, and what the merged runs last showed of it."""
    lines: list[str] = []
    for contract in contracts:
        found = [test for test in contract.tests if identity in ids_of(contract, test)]
        if found:
            lines += _contract(contract, found, merged)
    return "\n".join(lines) + "\n"


def _contract(
    contract: ContractRecord, tests: Sequence[TestRecord], merged: Merged
) -> Iterator[str]:
    yield f"{contract.id} {contract.version}  {one_line(contract.title)}"
    names = {test.id for test in tests}
    for status in gate_statuses([contract], merged.rows, merged.stale_keys):
        gate = next(gate for gate in contract.gates if gate.id == status.gate)
        if names.intersection(gate.tests):
            blocks = ", blocks shipping" if status.ship_blocking else ""
            teeth = f"teeth {status.teeth_caught}/{status.teeth_declared}"
            yield f"  gate {status.gate}: {status.status.name}, {teeth}{blocks}"
            yield from _wrapped("why not better", status.why[0]) if status.why else ()
    for test in tests:
        yield from _test(contract, test, merged)


def _test(contract: ContractRecord, test: TestRecord, merged: Merged) -> Iterator[str]:
    line = f":{test.line}" if test.line else ""
    yield ""
    yield f"  {test.id}  ({contract.path}{line})"
    yield from _wrapped("rule", test.title)
    yield from _wrapped("falsifier", test.falsifier)
    yield from _wrapped("invariants", ", ".join(test.invariants) or "none")
    for name, expression in test.claims.items():
        yield from _wrapped("claim", f"{name}: {expression}")
    for name, case in test.cases.items():
        key = f"{test.id}[{name}]"
        yield f"    {'case':<15} {name} ({case.scale})"
        yield from _wrapped("", _last(merged.origins.get(key), key in merged.stale_keys))
    yield from _margins(test, merged.origins)
    for defect in test.counter_examples:
        yield from _wrapped("must catch", f"{defect}: {_teeth(test, defect, merged)}")
    yield from _wrapped("if it fails", test.if_fails)
    yield from _wrapped("run", f"pytest -k {test.id}")


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"    {name:<15} ",
        subsequent_indent=" " * 20,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _last(origin: Origin | None, stale: bool) -> str:
    """How an entry last ended, when, where and in which run."""
    if origin is None:
        return "never run"
    row, run = origin.row, origin.run
    machine = next(where(e) for e in run.environments if e.id == row.environment)
    old = ", STALE: its files changed since" if stale else ""
    why = f" ({row.reason.detail})" if row.reason else ""
    return f"{row.outcome}{why}{old}; {row.started[:10]}, {machine}, {run.header.run_id}"


def _margins(test: TestRecord, origins: Mapping[str, Origin]) -> Iterator[str]:
    rows = [origins[key].row for key in sorted(origins) if origins[key].row.test == test.id]
    for near in nearest_first(rows)[:_MARGINS_SHOWN]:
        sides = " ".join(observed_and_bound(near.comparison))
        text = f"{near.margin:+.3g} of the tolerance: {near.comparison.claim}, {sides}"
        yield from _wrapped("margin left", f"{text}, {near.row.case_id}")


def _teeth(test: TestRecord, defect: str, merged: Merged) -> str:
    seen: Counter[str] = Counter()
    for key, origin in merged.origins.items():
        if origin.row.test == test.id and origin.row.defect == defect:
            age = " (stale)" if key in merged.stale_keys else ""
            seen[f"{origin.row.outcome.replace('_', ' ')} on {origin.row.device}{age}"] += 1
    return ", ".join(told for told, _ in sorted(seen.items())) or "never planted"
