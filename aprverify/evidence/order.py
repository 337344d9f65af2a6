"""Rows in the order of the contracts: parallel workers finish in any, and reports get compared."""

from __future__ import annotations

from dataclasses import replace

from aprverify.evidence.records import Run


def in_plan_order(run: Run) -> Run:
    """The same run; rows by contract, test, case as declared and then defect, machines by id."""
    place = {
        (test.id, case): (c, t, k)
        for c, contract in enumerate(run.contracts)
        for t, test in enumerate(contract.tests)
        for k, case in enumerate(test.cases)
    }
    rows = sorted(run.rows, key=lambda row: (place[row.test, row.case_id], row.defect or ""))
    environments = sorted(run.environments, key=lambda environment: environment.id)
    return replace(run, rows=tuple(rows), environments=tuple(environments))
