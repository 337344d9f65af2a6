"""What the suite's own falsifiers made of each defect: read from committed runs, never re-run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Row, Run

CAUGHT, SURVIVED, NOT_RUN, NONE = "caught", "survived", "not_run", "no evidence"


@dataclass(frozen=True)
class Verdict:
    """The suite's verdict on one defect in one run.

    Attributes:
        outcome: caught, if any falsifier that declares it caught it on the CPU.
        by: that falsification test, or why it was not run.
        seconds: wall time of all its rows that ran.
    """

    outcome: str
    by: str
    seconds: float


@dataclass(frozen=True)
class Evidence:
    """The newest committed run on a CPU, and what it says.

    Attributes:
        run: its id.
        commit: what it tested.
        verdicts: by defect.
        clean_seconds: wall time of all its claims.
        false_alarms: claims that were falsified on the trainer without a defect.
        claims: claims that reached a verdict.
    """

    run: str
    commit: str
    verdicts: dict[str, Verdict]
    clean_seconds: float
    false_alarms: int
    claims: int

    def of(self, defect: str) -> Verdict:
        """The verdict on a defect."""
        return self.verdicts.get(defect, Verdict(NONE, "newer than the run", 0.0))


def newest_cpu_evidence(runs: Path) -> Evidence:
    """The newest run below `runs` with planted defects and no row from a GPU.

    Raises:
        FileNotFoundError: there is none.
    """
    found = [read_run(path.parent) for path in sorted(runs.glob("*/run.jsonl"))]
    fit = [run for run in found if _on_cpu(run)]
    if not fit:
        raise FileNotFoundError(f"{runs}: no run with planted defects on a CPU; make one")
    run = max(fit, key=lambda run: run.header.started)
    claims = [row for row in run.rows if row.kind == "claim"]
    judged = [row for row in claims if row.outcome in ("held", "falsified")]
    return Evidence(
        run=run.header.run_id,
        commit=str(run.header.source.commit),
        verdicts=_verdicts(run),
        clean_seconds=sum(row.seconds for row in claims),
        false_alarms=sum(row.outcome == "falsified" for row in judged),
        claims=len(judged),
    )


def _on_cpu(run: Run) -> bool:
    ran = [row for row in run.rows if row.outcome != "not_run"]
    teeth = any(row.kind == "teeth" for row in ran)
    return teeth and all(row.device in ("cpu", "-") for row in ran)


def _verdicts(run: Run) -> dict[str, Verdict]:
    verdicts = {}
    rows = [row for row in run.rows if row.kind == "teeth"]
    for defect in sorted({str(row.defect) for row in rows}):
        own = [row for row in rows if row.defect == defect]
        ran = [row for row in own if row.outcome != "not_run"]
        seconds = round(sum(row.seconds for row in ran), 3)
        caught = [row for row in ran if row.outcome == "caught"]
        if caught:
            verdicts[defect] = Verdict(CAUGHT, caught[0].test, seconds)
        elif ran:
            verdicts[defect] = Verdict(SURVIVED, ran[0].test, seconds)
        else:
            verdicts[defect] = Verdict(NOT_RUN, _reasons(own), seconds)
    return verdicts


def _reasons(rows: Iterable[Row]) -> str:
    return "; ".join(sorted({row.reason.detail for row in rows if row.reason is not None}))[:160]
