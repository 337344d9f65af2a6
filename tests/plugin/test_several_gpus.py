"""Cases that need several GPUs: alone, in a lane of their own; with fewer GPUs not run."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from aprverify.evidence import verdict
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from aprverify.evidence.status import Status, gate_statuses

from ..conftest import Toy, contract, falsification

_GPUS = """
from aprverify import gpus
gpus._all_gpus = lambda: tuple(
    gpus.Gpu(str(index), f"GPU-{{index}}", "Toy GPU", 80.0, "9.0") for index in range({amount})
)
"""
_FALSIFIER = """
import os, time

def falsify_sum(subject, case, measured):
    with open("seen.txt", "a") as seen:
        print(case.id, os.environ.get("CUDA_VISIBLE_DEVICES", "all"), file=seen)
    if case.device == "cpu":
        with open("threads.txt", "a") as threads:
            print(os.environ["OMP_NUM_THREADS"], file=threads)
    measured(x=subject.total([1, 2]))
"""
_VERIFY = """
import os, sys
del os.environ["CUDA_VISIBLE_DEVICES"]
from aprverify import cli
sys.exit(cli.main(["--suite", "toy", "verify", "--run-dir", "run", "-n", "2", *sys.argv[1:]]))
"""


@pytest.fixture
def project(toy: Toy) -> Toy:
    """A claim on the CPU, on a GPU and on two."""
    cases = [
        {"scale": "reduced", "matrix": {"device": ["cpu"]}},
        {"scale": "full", "matrix": {"device": ["cuda"]}},
        {"scale": "full", "matrix": {"device": ["cuda"], "ranks": [2, 3]}, "requires": ["gpus:2"]},
    ]
    name = "FALSIFY-TOY-001"
    test = falsification(name, "falsify_toy.falsify_sum", invariants=["INV-TOY-001"], cases=cases)
    toy.contract(contract(falsification_tests=[test]))
    toy.write({"toysuite/falsify_toy.py": _FALSIFIER})
    return toy


def _verified(project: Toy, gpus: int, *arguments: str) -> tuple[int, Run]:
    # Read by every interpreter that starts with the project on its path, workers included.
    project.write({"sitecustomize.py": _GPUS.format(amount=gpus)})
    done = project.process("-c", _VERIFY, "--teeth", "none", *arguments)
    assert (project.root / "run").exists(), done.stdout + done.stderr
    return done.returncode, read_run(project.root / "run")


def _with_a_timed_case(project: Toy) -> None:
    cases = [
        {"scale": "full", "matrix": {"device": ["cuda"], "size": [1, 2]}},
        {"scale": "full", "matrix": {"device": ["cuda"]}, "requires": ["gpus:1"]},
    ]
    test = falsification(
        "FALSIFY-TOY-001", "falsify_toy.falsify_sum", invariants=["INV-TOY-001"], cases=cases
    )
    project.contract(contract(falsification_tests=[test]))


def test_what_times_a_gpu_has_it_to_itself_and_is_required_with_it(project: Toy) -> None:
    """After all others, on a machine with one GPU too."""
    _with_a_timed_case(project)
    status, run = _verified(project, 1, "--require", "cuda")
    assert (status, len(run.rows)) == (verdict.OK, 3)
    assert {row.outcome for row in run.rows} == {"held"}
    assert (project.root / "seen.txt").read_text().splitlines()[-1] == "device=cuda all"
    assert run.header.selection.everything


def test_what_times_a_gpu_is_required_where_there_is_none(project: Toy) -> None:
    """It is no claim about several GPUs, which `--require cuda` would leave out of account."""
    _with_a_timed_case(project)
    status, run = _verified(project, 0, "--lane", "gpus", "--require", "cuda")
    assert status == verdict.REQUIRED_NOT_RUN
    assert [row.outcome for row in run.rows] == ["not_run"]


def test_two_lanes_of_three_are_a_part(project: Toy) -> None:
    """Both GPU lanes together are not everything."""
    _with_a_timed_case(project)
    status, run = _verified(project, 1, "--lane", "gpus", "--lane", "cuda")
    assert (status, len(run.rows)) == (verdict.OK, 3)
    assert not run.header.selection.complete
    assert run.header.command[-4:] == ("--lane", "gpus", "--lane", "cuda")


def test_with_two_gpus_they_run_last_and_see_both(project: Toy) -> None:
    """One after the other, when the other lanes have ended; all of it is one complete run."""
    status, run = _verified(project, 2, "--require", "cuda", "--require", "gpus")
    assert status == verdict.OK
    assert {row.outcome for row in run.rows} == {"held"}
    assert (run.header.selection.lane, run.header.selection.complete) == ("all", True)
    seen = (project.root / "seen.txt").read_text().splitlines()
    # Whichever worker is ready first takes it, and each has the GPU of its own number.
    (pinned,) = (row for row in run.rows if row.case == {"device": "cuda"})
    assert pinned.worker in ("gw0", "gw1")
    assert sorted(seen[:2]) == ["device=cpu ", f"device=cuda {pinned.worker[2:]}"]
    assert seen[2:] == ["device=cuda,ranks=2 all", "device=cuda,ranks=3 all"]
    assert len({row.worker for row in run.rows if row.case.get("ranks")}) == 1


def test_with_one_gpu_they_are_open_with_the_reason(project: Toy) -> None:
    """The gate is PENDING; `--require cuda` asks for what one GPU can do, `gpus` for all."""
    status, run = _verified(project, 1, "--require", "cuda")
    assert status == verdict.OK
    reasons = {r.reason and r.reason.detail for r in run.rows if r.outcome == "not_run"}
    assert reasons == {"2 GPUs are needed, 1 visible"}
    assert [row.outcome for row in run.rows] == ["held", "held", "not_run", "not_run"]
    (gate,) = gate_statuses(run.contracts, run.rows)
    assert gate.status is Status.PENDING
    assert verdict.exit_code(run, ["gpus"]) == verdict.REQUIRED_NOT_RUN


def test_a_lane_of_its_own_is_selected_by_name(project: Toy) -> None:
    """The CUDA lane leaves them to it, and a run of that lane is complete without them."""
    for lane, expected in (("cuda", ["1"]), ("gpus", ["ranks=2", "ranks=3"])):
        _, run = project.record("--lane", lane)
        assert run.header.selection.complete
        found = [row.case.get("ranks", 1) for row in run.rows]
        assert [str(r) if r == 1 else f"ranks={r}" for r in found] == expected


def test_one_lane_by_itself_says_so_first(project: Toy) -> None:
    """It is whole as that lane, and no report of it reads as if it were everything."""
    status, run = _verified(project, 1, "--lane", "cuda", "--require", "cuda")
    assert status == verdict.OK
    assert [row.key for row in run.rows] == ["FALSIFY-TOY-001[device=cuda]"]
    assert (run.header.selection.complete, run.header.selection.everything) == (True, False)
    first = (project.root / "run" / "report.md").read_text().splitlines()[0]
    assert "what is run by other lanes than cuda" in first
    assert run.header.command[-2:] == ("--lane", "cuda")


def test_a_lane_by_itself_has_all_cores(project: Toy) -> None:
    """Beside another one it has half of them."""
    _verified(project, 1, "--lane", "cpu", "-n", "1")
    alone = (project.root / "threads.txt").read_text().split()
    (project.root / "threads.txt").unlink()
    shutil.rmtree(project.root / "run")
    _verified(project, 1, "-n", "1", "-k", "device:cpu")
    beside = (project.root / "threads.txt").read_text().split()
    cores = len(os.sched_getaffinity(0))
    assert (alone, beside) == ([str(cores)], [str(max(1, cores // 2))])


def test_a_lane_that_was_never_begun_leaves_an_incomplete_run(
    project: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After an interrupt the last round is not started, and nobody claims that it was."""
    from aprverify.commands import verify

    begun: list[int] = []

    def stopped(sessions: list[list[str]], folder: Path) -> list[int]:
        begun.append(len(sessions))
        return [2] * len(sessions)

    monkeypatch.setattr(verify, "_run_side_by_side", stopped)
    monkeypatch.setattr(verify, "_session", lambda args, lane, folder: [lane])
    rounds = [["cuda", "cpu"], ["gpus"]]
    statuses, whole = verify._run_rounds(Namespace(dearest=None), rounds, tmp_path)
    assert (begun, whole) == ([2], False)
    assert list(statuses) == [tmp_path / "lane-cuda", tmp_path / "lane-cpu"]
