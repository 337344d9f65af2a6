"""Somebody else's models under the same claims: transformers behind the subject protocol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from aprverify.evidence.status import Status, gate_statuses

ROOT = Path(__file__).resolve().parents[2]
ASKED = "FALSIFY-CUDA-RMSNORM-EPS-PARITY-001 or INV-TRAIN-011"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One falsifier that this subject can serve and one that it cannot, with their teeth."""
    folder = tmp_path_factory.mktemp("transformers") / "run"
    options = ["--subject", "transformers", "--teeth", "declared", "--lane", "cpu", "-k", ASKED]
    command = [sys.executable, "-m", "pytest", "falsifiers", *options, "--evidence", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    return read_run(folder)


def test_a_right_model_of_somebody_else_holds(run: Run) -> None:
    """The claim is about the function, not about our code."""
    rows = [r for r in run.rows if r.test.startswith("FALSIFY-CUDA") and r.kind == "claim"]
    assert len(rows) == 2
    assert all(row.outcome == "held" for row in rows)


def test_protocol_defects_are_caught_on_it_and_source_defects_do_not_apply(run: Run) -> None:
    """Teeth exist for other people's trainers too, and what cannot apply says so."""
    teeth = {r.defect: r for r in run.rows if r.test.startswith("FALSIFY-CUDA") and r.defect}
    assert teeth["rmsnorm-eps-configuration-ignored"].outcome == "caught"
    source = teeth["rmsnorm-eps-hardcoded"]
    assert (source.outcome, source.reason and source.reason.kind) == ("not_run", "subject")


def test_what_it_cannot_do_is_not_run_and_its_gate_stays_open(run: Run) -> None:
    """A subject without a training loop discharges no claim about one."""
    claims = [r for r in run.rows if r.test == "FALSIFY-TRAIN-EXHAUST" and r.kind == "claim"]
    assert claims and all(row.outcome == "not_run" for row in claims)
    statuses = {s.gate: s.status for s in gate_statuses(run.contracts, run.rows)}
    assert statuses["GATE-TRAIN-EXHAUST"] is Status.PENDING
    eps = statuses["FALSIFY-CUDA-RMSNORM-EPS-PARITY-001"]
    assert eps is Status.PARTIAL_ALGORITHM_LEVEL
