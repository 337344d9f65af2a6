"""`aprverify verify` that is told to end: by `timeout`, or by a service whose job was cancelled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from aprverify.evidence.reader import read_run
from aprverify.views.beside import REPORT_FILE
from tests.conftest import Toy, contract, falsification

_SLOW = """
import pathlib, subprocess, sys

def falsify_sum(subject, case, measured):
    if case.seed == 1:
        # As a trainer would be, run by a process of its own, which has SIGTERM's default.
        command = "import time; open('started', 'w').close(); time.sleep(60)"
        done = subprocess.run([sys.executable, "-c", command])
        measured(x=done.returncode)
    measured(x=subject.total([1, 2]))
"""


@pytest.fixture
def slow(toy: Toy) -> Toy:
    """Four cases, the second of which takes a minute."""
    toy.write({"toysuite/falsify_toy.py": _SLOW})
    cases = [{"scale": "full", "matrix": {"device": ["cpu"], "seed": [0, 1, 2, 3]}}]
    test = falsification(
        "FALSIFY-TOY-001", "falsify_toy.falsify_sum", cases=cases, invariants=["INV-TOY-001"]
    )
    toy.contract(contract(falsification_tests=[test]))
    return toy


def _begin(toy: Toy, folder: Path, workers: str) -> subprocess.Popen[str]:
    """`verify` that has come to the slow case."""
    process = subprocess.Popen(
        [sys.executable, "-m", "aprverify", "--suite", "toy", "verify", "--teeth", "none",
         "--run-dir", str(folder), "-n", workers],
        cwd=toy.root, env=toy.env(), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 50
    while not (toy.root / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("reach", ["verify", "group", "both"])
def test_sigterm_leaves_a_finished_run_that_says_so(slow: Toy, reach: str, workers: str) -> None:
    """As Ctrl-C does, whoever gets it; `timeout` sends it to its command and then to the group."""
    folder = slow.root / "run"
    with _begin(slow, folder, workers) as process:
        if reach != "group":
            os.kill(process.pid, signal.SIGTERM)
        if reach != "verify":
            os.killpg(process.pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=50)
    assert process.returncode == 130, said
    run = read_run(folder)
    assert run.footer.interrupted and (folder / REPORT_FILE).exists()
    outcomes = [(row.outcome, row.reason.kind if row.reason else None) for row in run.rows]
    assert Counter(outcomes) == {("held", None): 1, ("not_run", "interrupted"): 3}
    assert not list(folder.glob("lane-*"))
