"""What an entry stands for and how it ended, in the words that every machine view uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aprverify.evidence.localized import first_fault
from aprverify.evidence.markdown import clip, observed_and_bound
from aprverify.evidence.records import ContractRecord, Row, Run, TestRecord

PASSED = frozenset({"held", "caught"})
FAILED = frozenset({"falsified", "survived"})
ERRORS = frozenset({"broken", "inconclusive"})


@dataclass(frozen=True)
class Identity:
    """The contract, test and gates of an entry."""

    contract: ContractRecord
    test: TestRecord
    gates: tuple[str, ...]


def identities(run: Run) -> Mapping[str, Identity]:
    """By test id."""
    return {
        test.id: Identity(
            contract, test, tuple(gate.id for gate in contract.gates if test.id in gate.tests)
        )
        for contract in run.contracts
        for test in contract.tests
    }


def what_happened(row: Row, test: TestRecord) -> str:
    """Why an entry did not pass, in a sentence or two; empty for one that did."""
    if row.outcome in PASSED:
        return ""
    if row.reason is not None:
        remedy = f" To run it: {row.reason.remedy}" if row.reason.remedy else ""
        kind = row.reason.kind
        return f"{row.outcome}, {kind}: {clip(row.reason.detail, 600) or 'no detail'}.{remedy}"
    if row.outcome == "survived":
        return f"the planted defect {row.defect} changed outputs, and yet every claim held"
    failing = (c for c in row.comparisons if not c.holds)
    told = (f"claim {c.claim}: {c.text} ({' '.join(observed_and_bound(c))})" for c in failing)
    seen = row.localization
    fault = f" First at fault: {first_fault(seen)}." if seen is not None else ""
    look = f" Look at: {test.if_fails}" if test.if_fails else ""
    return f"falsified: {'; '.join(told)}.{fault}{look}"
