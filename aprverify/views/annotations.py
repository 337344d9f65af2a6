"""A run as workflow commands of GitHub: an error for whatever keeps it from passing.

A run that does not pass never leaves without an error, whether a claim failed, something broke
before it could be tried, or nothing ran at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from aprverify.evidence import verdict
from aprverify.evidence.order import in_plan_order
from aprverify.evidence.records import Row, Run
from aprverify.evidence.sentences import gaps, verdict_sentence
from aprverify.views.entries import ERRORS, FAILED, Identity, identities, what_happened

_WORST_FIRST = ("falsified", "survived", "broken", "inconclusive")


def render_annotations(run: Run) -> str:
    """The commands, a line each, the worst first: GitHub shows the first ten of a step."""
    run = in_plan_order(run)
    known = identities(run)
    failed = [row for row in run.rows if row.outcome in FAILED | ERRORS]
    failed.sort(key=lambda row: _WORST_FIRST.index(row.outcome))
    lines = [_of_row(row, known[row.test]) for row in failed]
    lines += _of_run(run)
    return "".join(f"{line}\n" for line in lines)


def _of_row(row: Row, identity: Identity) -> str:
    message = f"{row.key}: {what_happened(row, identity.test)}"
    return _command(f"{row.test} {row.outcome}", message, _place(identity))


def _of_run(run: Run) -> Iterator[str]:
    """What no single row says: the run was stopped, was empty, or left out what was required."""
    code = verdict.exit_code(run, run.header.require)
    if code in (verdict.INTERRUPTED, verdict.NOTHING_RAN):
        yield _command("aprverify", verdict_sentence(run))
    if run.header.require:
        for gap in gaps(verdict.required_not_run(run, run.header.require)):
            what = f"{len(gap.rows)} required entries did not run, as {gap.rows[0].key}"
            remedy = f" To run them: {gap.reason.remedy}" if gap.reason.remedy else ""
            yield _command("did not run", f"{what}: {gap.reason.detail}.{remedy}")


def _place(identity: Identity) -> dict[str, str]:
    # A run from before lines were recorded points at its contract's first line.
    return {"file": identity.contract.path, "line": str(identity.test.line or 1)}


def _command(title: str, message: str, place: dict[str, str] | None = None) -> str:
    properties = {**(place or {}), "title": title}
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::error {told}::{_data(message)}"


def _data(text: str) -> str:
    """A message, escaped as the runner unescapes it; the percent sign first."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
