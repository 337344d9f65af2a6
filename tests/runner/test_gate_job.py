"""The gate job's steps, really run on copies of the committed runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from aprverify import cli
from tests.runner.files import GATE, ROOT
from tests.runner.job import Job

_RUNS = sorted((ROOT / "evidence" / "runs").iterdir())
_VIEWS = {"page.html", "junit.xml", "statement.json", "summary.md", "gate.txt", "gate.json"}
_WORDS = {"gate.txt", "gate.json"}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A gate job that has downloaded one committed run a lane."""
    job = Job(tmp_path, ROOT, os.environ)
    for run in _RUNS:
        shutil.copytree(run, job.temp / "aprverify" / "lanes" / f"lane-{run.name}" / run.name)
    return job


def test_the_gate_judges_merges_and_publishes(job: Job, tmp_path: Path) -> None:
    """The job ends as `aprverify gate` does, with the merged run, every view and a summary."""
    lanes = [str(run) for run in _RUNS]
    # Committed runs need not be of one checkout; then there is a verdict, and nothing merged.
    merged = cli.main(["merge", *lanes, "--out", str(tmp_path / "direct")]) in (0, 9)
    done = job.run(GATE)
    status = cli.main(["gate", *lanes])
    assert done.status == status
    assert done.outputs["exit-code"] == str(status)
    assert ("merged-7-1/run.jsonl" in done.uploads["aprverify-merged.1"]) is merged
    assert done.uploads["aprverify-views-merged.1"] == (_VIEWS if merged else _WORDS)
    assert f"## Gate: exit status {status}" in job.summary
    assert ("::error title=gate::GATE NOT MET" in done.log) is (status != 0)


def test_a_damaged_lane_is_refused(job: Job) -> None:
    """Edited evidence fails the job with 7; what the gate said is uploaded all the same."""
    file = next(job.temp.glob("aprverify/lanes/*/*/run.jsonl"))
    file.write_bytes(file.read_bytes().replace(b'"held"', b'"HELD"', 1))
    done = job.run(GATE)
    assert (done.status, done.outputs["exit-code"]) == (7, "7")
    assert "::error title=gate::refused" in done.log
    assert done.uploads["aprverify-merged.1"] == set()
    assert done.uploads["aprverify-views-merged.1"] >= _WORDS


def test_unsigned_runs_are_refused_where_signatures_are_required(job: Job) -> None:
    """`require-signed` reaches the gate, with a name and without."""
    for wanted in ("any", "Ada Example"):
        done = job.run(GATE, require_signed=wanted)
        assert done.status == 7
        assert "sign" in done.log.partition("::error title=gate::refused")[2]
        shutil.rmtree(job.temp / "aprverify" / "merged")


def test_a_policy_that_cannot_be_read_fails_the_job(job: Job, tmp_path: Path) -> None:
    """`policy` reaches the gate: a file with problems gives 2, and the log has the line."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("policy: aprverify-policy/1\nrequired: [GATE-NOBODY-001]\n")
    done = job.run(GATE, policy=str(policy))
    assert done.status == 2
    assert f"{policy}:2" in done.log


def test_no_lane_no_pass(tmp_path: Path) -> None:
    """Where no lane left a run the job fails, although nothing was falsified."""
    job = Job(tmp_path, ROOT, os.environ)
    done = job.run(GATE, evidence="evidence")
    assert done.status == 7
    assert "::error title=gate::No lane left a run." in done.log
    assert done.steps["Judge"] == "skipped"


def test_evidence_is_judged_beside_the_lanes(job: Job, tmp_path: Path) -> None:
    """`evidence` reaches the gate: a folder in which there is no run is refused."""
    empty = tmp_path / "nothing here"
    empty.mkdir()
    done = job.run(GATE, evidence=f"evidence\n{empty}")
    assert done.status == 7
    assert str(empty) in done.log
