"""The exit status of a run, from its rows: what pytest's own exit status cannot carry.

Worst first: 130, 1, 3, 4, 5, 6, 0. Status 2 stays pytest's, for usage errors and the like.
"""

from __future__ import annotations

from collections.abc import Sequence

from aprverify.contract.model import GPUS_ALONE
from aprverify.evidence.records import Row, Run

OK = 0
"""Everything that ran held, and every planted defect was caught."""
FALSIFIED = 1
"""A claim was falsified."""
VACUOUS = 3
"""A planted defect survived: a falsifier cannot fail."""
BROKEN = 4
"""An entry broke or was inconclusive."""
REQUIRED_NOT_RUN = 5
"""A device was required, and some entry did not run."""
NOTHING_RAN = 6
"""Not one entry reached a verdict."""
REFUSED = 7
"""The evidence was refused, or its report is not what the run says."""
STALE = 8
"""Of a gate: what was shown is about other files than the present ones, or too old."""
CONFLICT = 9
"""Of a gate or a merge: verdicts about the same files differ."""
INTERRUPTED = 130
"""Stopped by hand, as shells report it; `git bisect run` then stops and blames no commit."""


def exit_code(run: Run, require: Sequence[str]) -> int:
    """The exit status of a run. With any device in `require`, an entry that did not run fails."""
    outcomes = {row.outcome for row in run.rows}
    if run.footer.interrupted:
        return INTERRUPTED
    if "falsified" in outcomes:
        return FALSIFIED
    if "survived" in outcomes:
        return VACUOUS
    if outcomes & {"broken", "inconclusive"}:
        return BROKEN
    if require and required_not_run(run, require):
        return REQUIRED_NOT_RUN
    if not outcomes & {"held", "caught"}:
        return NOTHING_RAN
    return OK


def required_not_run(run: Run, require: Sequence[str]) -> list[Row]:
    """What did not run and was asked for.

    That is all but defects that do not apply to the subject and, unless several GPUs were required
    by name, what needs several of them.
    """
    tests = {test.id: test for contract in run.contracts for test in contract.tests}
    several = GPUS_ALONE in require
    return [
        row
        for row in run.rows
        if row.outcome == "not_run"
        and not row.inapplicable
        and (several or tests[row.test].cases[row.case_id].gpus <= 1)
    ]
