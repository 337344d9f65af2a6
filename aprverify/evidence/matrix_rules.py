"""What a matrix must show: no defect that nobody catches, no falsifier that catches nothing.

A row or a cross speaks only of what could be tried on this machine: a defect of which no pair could
be planted here is *open*, and so is a falsifier that did not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aprverify.evidence import verdict
from aprverify.evidence.records import Row, Run


@dataclass(frozen=True)
class Finding:
    """A rule that is not met. `kind`: survivor, uncaught, idle, disagrees or left behind."""

    kind: str
    about: str
    text: str


@dataclass(frozen=True)
class Judged:
    """What the rules say of a run. `open`: what this machine could not show."""

    findings: tuple[Finding, ...]
    open_defects: tuple[str, ...]
    open_tests: tuple[str, ...]


def judge_matrix(run: Run) -> Judged:
    """Every rule, over all rows and crosses of a run."""
    defects = list(_defects(run))
    tests = list(_tests(run))
    return Judged(
        findings=(
            *_survivors(run),
            *(found for found, _ in defects if found),
            *(found for found, _ in tests if found),
            *_disagreements(run),
            *_spoilt(run),
        ),
        open_defects=tuple(name for _, name in defects if name),
        open_tests=tuple(name for _, name in tests if name),
    )


def matrix_exit_code(run: Run) -> int:
    """As `aprverify verify` has it; a rule that is not met is a suite without teeth."""
    code = verdict.exit_code(run, ())
    if code not in (verdict.OK, verdict.BROKEN):
        return code
    kinds = {finding.kind for finding in judge_matrix(run).findings}
    if kinds & {"survivor", "uncaught", "idle"}:
        return verdict.VACUOUS
    return verdict.BROKEN if kinds else code


def killers(run: Run) -> dict[str, set[str]]:
    """The tests that caught each defect: declared, and off the diagonal."""
    found: dict[str, set[str]] = {}
    for row in run.rows:
        if row.outcome == "caught" and row.defect is not None:
            found.setdefault(row.defect, set()).add(row.test)
    if run.matrix is not None:
        for cross in run.matrix.crosses:
            if cross.outcome == "killed":
                test = run.matrix.columns[cross.column].test
                found.setdefault(cross.defect, set()).add(test)
    return found


def owners(run: Run) -> dict[str, list[str]]:
    """The contracts that declare each defect, in order."""
    found: dict[str, list[str]] = {}
    for contract in run.contracts:
        for test in contract.tests:
            for defect in test.counter_examples:
                if contract.id not in found.setdefault(defect, []):
                    found[defect].append(contract.id)
    return found


def _survivors(run: Run) -> Iterator[Finding]:
    for row in run.rows:
        if row.outcome == "survived":
            yield Finding(
                "survivor", row.key, f"{row.key}: declared, in force, and every claim held"
            )


def _defects(run: Run) -> Iterator[tuple[Finding | None, str]]:
    contract_of = {test.id: contract.id for contract in run.contracts for test in contract.tests}
    caught = killers(run)
    rows: dict[tuple[str, str], list[Row]] = {}
    for row in run.rows:
        if row.defect is not None:
            rows.setdefault((row.defect, row.contract), []).append(row)
    for defect, contracts in owners(run).items():
        for contract in contracts:
            if any(contract_of[test] == contract for test in caught.get(defect, ())):
                continue
            name = f"{defect} in {contract}"
            if all(row.outcome == "not_run" for row in rows.get((defect, contract), ())):
                yield None, name
            else:
                others = ", ".join(sorted(caught.get(defect, ()))) or "no falsifier at all"
                text = f"{name}: no falsifier of that contract catches it; caught by {others}"
                yield Finding("uncaught", defect, text), ""


def _tests(run: Run) -> Iterator[tuple[Finding | None, str]]:
    busy = set().union(*killers(run).values()) if killers(run) else set()
    for contract in run.contracts:
        for test in contract.tests:
            rows = [row for row in run.rows if row.test == test.id]
            if test.id in busy:
                continue
            if all(row.outcome == "not_run" for row in rows if row.kind == "teeth"):
                yield None, test.id
            else:
                yield Finding("idle", test.id, f"{test.id}: catches no defect at all"), ""


def _disagreements(run: Run) -> Iterator[Finding]:
    """A pair that was tried twice on one machine, with two verdicts."""
    if run.matrix is None:
        return
    said = {(r.defect, r.key.rpartition("!")[0]): r.outcome for r in run.rows if r.kind == "teeth"}
    other = {"killed": "survived", "passed": "caught"}
    for cross in run.matrix.crosses:
        if said.get((cross.defect, cross.column)) == other.get(cross.outcome, ""):
            text = f"{cross.column}!{cross.defect}: once caught and once not, on the same files"
            yield Finding("disagrees", cross.column, text)


def _spoilt(run: Run) -> Iterator[Finding]:
    for defect in dict.fromkeys(run.matrix.wrong if run.matrix is not None else ()):
        text = f"{defect}: left something behind when it was removed: the canary differs"
        yield Finding("left behind", defect, text)
