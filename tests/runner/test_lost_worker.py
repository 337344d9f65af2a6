"""The sessions of `aprverify verify`: what a killed worker leaves, and whose options count."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from aprverify.evidence.reader import read_run
from tests.conftest import Toy, contract, falsification

_SLOW = """
import os
import time

def falsify_sum(subject, case, measured):
    if case.n == 3:
        os.kill(os.getpid(), 9)
    time.sleep(0.05)
    measured(x=subject.total([1, 2]))
"""
_CASES = 12


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_worker_ends_the_run_within_seconds(toy: Toy, workers: str) -> None:
    """Each entry has a row; what was lost is broken, never held; and the exit status says so."""
    cases = [{"scale": "full", "matrix": {"device": ["cpu"], "n": [*range(_CASES)]}}]
    toy.write({"toysuite/falsify_toy.py": _SLOW})
    toy.contract(
        contract(
            falsification_tests=[
                falsification("FALSIFY-TOY-001", "falsify_toy.falsify_sum", cases=cases,
                              invariants=["INV-TOY-001"])
            ]
        )
    )  # fmt: skip
    folder, began = toy.root / "run", time.monotonic()
    done = toy.process(
        "-m", "aprverify", "--suite", "toy", "verify", "--teeth", "none", "--run-dir", str(folder),
        "-n", workers,
    )  # fmt: skip
    assert time.monotonic() - began < 40
    assert done.returncode == 4, done.stdout + done.stderr
    rows = {row.key: row for row in read_run(folder).rows}
    assert len(rows) == _CASES
    lost = rows["FALSIFY-TOY-001[device=cpu,n=3]"]
    assert lost.outcome == "broken" and lost.reason is not None and lost.reason.kind == "crash"
    assert {row.outcome for row in rows.values()} <= {"held", "broken"}


def test_options_and_plugins_of_the_environment_have_no_say(toy: Toy) -> None:
    """Neither what somebody adds to every pytest nor what lies in the folder beside."""
    toy.write({"bystander.py": "raise RuntimeError('loaded')\n"})
    variables = {
        **toy.env(), "PYTEST_ADDOPTS": "-k nothing-at-all", "PYTEST_PLUGINS": "bystander",
    }  # fmt: skip
    folder = toy.root / "run"
    done = subprocess.run(
        [sys.executable, "-m", "aprverify", "--suite", "toy", "verify", "--run-dir", str(folder)],
        cwd=toy.root, env=variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_run(folder).header.selection.complete


_SHARE = """
import os

def falsify_sum(subject, case, measured):
    measured(x=int(os.environ.get("OMP_NUM_THREADS", "0")))
"""


def test_workers_of_verify_have_their_share_of_the_cores(toy: Toy) -> None:
    """Set before a worker starts: else each takes all cores, and a run takes twice as long."""
    environment = {k: v for k, v in toy.env().items() if k != "OMP_NUM_THREADS"}
    assert _seen_by_workers(toy, _SHARE, environment, "-n", "2") == {
        max(1, len(os.sched_getaffinity(0)) // 2)
    }


_WORKERS = """
import os

def falsify_sum(subject, case, measured):
    measured(x=int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
"""


def test_the_lane_and_not_xdist_says_how_many_workers(toy: Toy) -> None:
    """A lane of GPUs has room for few; xdist would start one a core, until memory runs out."""
    cores = len(os.sched_getaffinity(0))
    environment = {**toy.env(), "PYTEST_XDIST_AUTO_NUM_WORKERS": str(cores + 3)}
    assert _seen_by_workers(toy, _WORKERS, environment) == {cores}


def _seen_by_workers(
    toy: Toy, falsifier: str, environment: dict[str, str], *options: str
) -> set[object]:
    """What a falsifier measures in the workers of a verify."""
    toy.write({"toysuite/falsify_toy.py": falsifier})
    toy.contract(
        contract(
            falsification_tests=[
                falsification("FALSIFY-TOY-001", "falsify_toy.falsify_sum",
                              invariants=["INV-TOY-001"])
            ]
        )
    )  # fmt: skip
    folder = toy.root / "run"
    subprocess.run(
        [sys.executable, "-m", "aprverify", "--suite", "toy", "verify", "--teeth", "none",
         "--run-dir", str(folder), *options],
        cwd=toy.root, env=environment, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return {row.measures["x"] for row in read_run(folder).rows}
