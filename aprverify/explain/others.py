"""What is neither a failed claim nor a success: survivors, what broke, and what did not run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from aprverify.evidence.closest import Near, tolerance_margin
from aprverify.evidence.markdown import count, observed_and_bound
from aprverify.evidence.records import Row, Run
from aprverify.evidence.sentences import gaps
from aprverify.explain.reproduce import reproduction
from aprverify.explain.story import Other

MEANING = {
    "setup": "something failed before the falsifier began or after it ended, so the claim was not "
    "tested",
    "error": "the falsifier, or the trainer below it, raised an error instead of measuring, so "
    "nothing is known of the claim",
    "crash": "the process died, by a crash, for want of memory or at its time limit, so nothing "
    "is known of the claim",
    "missing": "the entry was planned and left nothing behind, so nothing is known of the claim",
    "plant": "the planted defect was not in force, so the test was not shown to be able to fail; "
    "either the code that it alters is not used any more, or the trainer already does what it does",
    "inconclusive": "the measurement itself could not decide, so the claim is neither held nor "
    "falsified",
    "device": "this machine has not the device that the case asks for, so nothing is known of it",
    "asset": "a file that the case rests on is not here, so nothing is known of it",
    "package": "a package that the case rests on is not installed, so nothing is known of it",
    "subject": "the trainer under test has no such ability, so the claim says nothing of it",
    "interrupted": "the run was stopped before its end, so nothing is known of it",
}
_INAPPLICABLE = (
    "the defect patches another trainer than the one under test; it stands in nobody's way as long "
    "as another defect of the same test is caught"
)
_DO = {
    "setup": "mend what the message names, and run it again",
    "error": "read the message; if it is the trainer's, this is a failure that no claim is about",
    "crash": "run it alone, and watch its memory",
    "missing": "look for the import error or the lost worker in the run's output",
    "plant": "look at what the defect patches, and whether the trainer still goes through it",
    "inconclusive": "run it again on a quiet machine",
}


def others(run: Run, rows: Iterable[Row]) -> Iterator[Other]:
    """Those of `rows`: survivors first, one each; then all else by its reason."""
    rows = sorted(rows, key=lambda row: row.key)
    yield from _survivors(run, [row for row in rows if row.outcome == "survived"])
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.outcome in ("broken", "inconclusive") and row.reason is not None:
            groups[row.outcome, row.reason.kind, _alike(row, row.reason.detail)].append(row)
    for (outcome, kind, _), members in groups.items():
        reason = members[0].reason
        assert reason is not None
        yield Other(
            kind=outcome,
            headline=f"{count(len(members), 'entry', 'entries')} {outcome} ({kind})",
            entries=tuple(row.key for row in members),
            said=reason.detail,
            meaning=MEANING[kind],
            do=reason.remedy or _DO.get(kind, "run it again"),
            again=_again(run, members[0]),
        )
    for gap in gaps(rows):
        inapplicable = all(row.inapplicable for row in gap.rows)
        yield Other(
            kind="not_run",
            headline=f"{count(len(gap.rows), 'entry', 'entries')} did not run ({gap.reason.kind})",
            entries=tuple(row.key for row in gap.rows),
            said=gap.reason.detail,
            meaning=_INAPPLICABLE if inapplicable else MEANING[gap.reason.kind],
            do=gap.reason.remedy,
            again="",
        )


def _alike(row: Row, detail: str) -> str:
    """A message without what differs from entry to entry: its defect's name, and counts."""
    told = detail.replace(row.defect, "…") if row.defect else detail
    return re.sub(r"\d+", "0", told) if row.reason and row.reason.kind == "plant" else told


def _again(run: Run, row: Row) -> str:
    again = reproduction(run, row)
    return again.entry or again.recorded


def _survivors(run: Run, rows: Iterable[Row]) -> Iterator[Other]:
    for row in rows:
        plant, said = row.plant, ""
        if plant is not None:
            said = (
                f"{row.defect} was in force (its code ran {plant.reached} times, and changed what "
                f"came out {plant.changed} times), and every claim held. "
            )
        yield Other(
            kind="survived",
            headline=f"{row.defect} survived in {row.test}",
            entries=(row.key,),
            said=said + _nearest(row),
            meaning="the falsifier has no teeth against this defect, so its pass says nothing of "
            f"such a fault and its gate is VACUOUS; {_elsewhere(run, row)}",
            do="tighten the bound, or measure what the defect changes",
            again=_again(run, row),
        )


def _nearest(row: Row) -> str:
    near = [Near(tolerance_margin(c, row.comparisons), row, c) for c in row.comparisons]
    told = [n for n in near if n.margin is not None]
    if not told:
        return "None of its comparisons has a tolerance."
    best = min(told, key=lambda n: (n.margin or 0.0, n.comparison.text))
    observed, bound = observed_and_bound(best.comparison)
    return (
        f"The nearest was claim {best.comparison.claim}: {best.comparison.text}, "
        f"{observed} {bound}, {best.margin:+.2g} of the tolerance left."
    )


def _elsewhere(run: Run, row: Row) -> str:
    caught = sorted(
        other.key for other in run.rows if other.defect == row.defect and other.outcome == "caught"
    )
    if not caught:
        return "nothing in this run caught it"
    more = f" and {len(caught) - 1} more" if len(caught) > 1 else ""
    return f"it was caught by {caught[0]}{more}"
