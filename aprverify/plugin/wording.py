"""How pytest shows a verdict: a word for each outcome, and a report that agrees with the row.

pytest decides by exceptions and marks: a skip, or a mark for expected failures, would turn a
falsified claim into something that looks fine. Here the row decides and the report follows.
"""

from __future__ import annotations

import pytest

from aprverify.outcomes import Broken, Falsified, Inconclusive, NotRun, Survived
from aprverify.plugin.attempt import Attempt

OUTCOME = "aprverify_outcome"
_STATUS = {
    "held": ("passed", ".", "HELD"),
    "caught": ("passed", ".", "CAUGHT"),
    "falsified": ("failed", "F", "FALSIFIED"),
    "survived": ("failed", "S", "SURVIVED"),
    "broken": ("failed", "B", "BROKEN"),
    "inconclusive": ("failed", "I", "INCONCLUSIVE"),
    "not_run": ("skipped", "s", "NOT RUN"),
}
_OWN = (Broken, Falsified, Inconclusive, Survived)


def status(report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
    """pytest's category, letter and word for a report that carries a verdict."""
    return _STATUS.get(getattr(report, OUTCOME, ""))


def agree(report: pytest.TestReport, attempt: Attempt, error: BaseException | None) -> None:
    """Let the report of a call, or of a setup that ended in `error`, say what the row says."""
    if (
        attempt.outcome is None
        or report.when == "teardown"
        or (report.when == "setup" and not error)
    ):
        return
    setattr(report, OUTCOME, attempt.outcome)
    vars(report).pop("wasxfail", None)
    category = _STATUS[attempt.outcome][0]
    if category == "passed":
        report.outcome, report.longrepr = "passed", None
    elif category == "skipped":
        report.outcome = "skipped"
        path, line, _ = report.location
        report.longrepr = (path, (line or 0) + 1, f"NOT RUN: {_not_run(attempt)}")
    else:
        own = isinstance(error, (*_OWN, pytest.skip.Exception, pytest.xfail.Exception))
        if own or report.outcome != "failed":
            report.longrepr = _explain(attempt)
        report.outcome = "failed"


def _not_run(attempt: Attempt) -> str:
    reason = attempt.reason or {}
    return str(NotRun(reason["kind"], reason["detail"], reason["remedy"]))


def _explain(attempt: Attempt) -> str:
    entry, test = attempt.entry, attempt.entry.test
    if attempt.outcome == "survived":
        found = f"{entry.defect} was in force and every claim held: the falsifier has no teeth here"
    elif attempt.reason is not None:
        found = attempt.reason["detail"]
    else:
        found = attempt.explanation()
    head = f"{str(attempt.outcome).upper()} {entry.key}"
    return f"{head}\nrule: {test.rule}\n{found}\nlook at: {test.if_fails}"
