"""``torchrun -m trainer pretrain``: two processes, one run directory, one ending."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.parallel.conftest import ROOT, environment, launch, torchrun
from tests.trainer.run.conftest import prepare, write_model, write_tokenizer
from trainer import cli

STEPS, SEEN_STEPS = 80, 3
NUMBERS = ("step", "train_loss", "grad_norm", "lr")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a model, a tokenizer and a dataset."""
    root = tmp_path_factory.mktemp("inputs")
    write_model(root / "model")
    prepare(root, write_tokenizer(root / "tokenizer"))
    return root


def words(inputs: Path, run_dir: Path, *more: str) -> list[str]:
    """Arguments of a run of two epochs."""
    options = {
        "--device": "cpu",
        "--init": inputs / "model",
        "--tokenizer": inputs / "tokenizer",
        "--dataset": inputs / "dataset",
        "--run-dir": run_dir,
        "--num-steps": STEPS,
        "--steps-per-epoch": STEPS // 2,
        "--batch-size": 2,
        "--seq-length": 16,
        "--warmup": 1,
        "--lr": 0.002,
    }
    return ["pretrain", *(str(word) for pair in options.items() for word in pair), *more]


def log(run_dir: Path) -> list[dict[str, Any]]:
    """What the run logged of each step, but for the time it took."""
    lines = (run_dir / "train.jsonl").read_text().splitlines()
    return [{name: json.loads(line)[name] for name in NUMBERS} for line in lines]


def outcome(run_dir: Path) -> dict[str, Any]:
    """How the run ended."""
    content: dict[str, Any] = json.loads((run_dir / "outcome.json").read_text())
    return content


def epochs(run_dir: Path) -> list[dict[str, Any]]:
    """The metadata of both epochs, but for the time they took."""
    found = [json.loads(p.read_text()) for p in sorted(run_dir.glob("ckpt/*.metadata.json"))]
    for metadata in found:
        del metadata["wall_seconds"]
    return found


@pytest.fixture(scope="module")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of one process with accumulation of two."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    assert cli.main(words(inputs, run_dir, "--accumulation", "2")) == 0
    return run_dir


def worker(launcher: int, rank: int) -> int:
    """The process of `rank` among the children of torchrun."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    mark = f"RANK={rank}".encode()
    found = [c for c in children if mark in Path(f"/proc/{c}/environ").read_bytes().split(b"\0")]
    return int(found[0])


def launch_and_signal(arguments: list[str], run_dir: Path, number: int) -> tuple[int, str]:
    """Send `number` to rank 1 alone in the middle of a run; torchrun's exit code and stderr."""
    # With the lowest priority: on busy cores the run waits, and not who looks at its log.
    command = ["nice", "-n", "19", *torchrun("-m", "trainer", *arguments)]
    process = subprocess.Popen(
        command, env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    path, deadline = run_dir / "train.jsonl", time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < SEEN_STEPS:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(worker(process.pid, 1), number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.fixture(scope="module")
def stopped(
    inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, int, str]]:
    """An FSDP run of which rank 1 alone got SIGTERM: run directory, exit code, stderr."""
    run_dir = tmp_path_factory.mktemp("stopped") / "run"
    arguments = words(inputs, run_dir, "--parallel", "fsdp")
    yield run_dir, *launch_and_signal(arguments, run_dir, signal.SIGTERM)


def test_ddp_is_accumulation_bit_for_bit(inputs: Path, alone: Path, tmp_path: Path) -> None:
    """Two ranks see the batches of one process with accumulation 2: every logged loss, norm and
    rate, both held-out losses and the hash of the optimizer state are the same; there is one log,
    one set of checkpoints and one line on stdout."""
    run_dir = tmp_path / "run"
    done = launch("-m", "trainer", *words(inputs, run_dir, "--json"))
    assert done.returncode == 0, done.stderr
    assert log(run_dir) == log(alone)
    assert epochs(run_dir) == epochs(alone)
    assert json.loads(done.stdout) == outcome(run_dir)
    assert outcome(run_dir)["tokens_seen"] == outcome(alone)["tokens_seen"]
    assert done.stderr.count("OK: 80 steps") == 1
    recorded = json.loads((run_dir / "run.json").read_text())
    assert (recorded["ranks"], recorded["parallel"]) == (2, "ddp")


def test_a_signal_to_one_rank_stops_all_at_one_step(stopped: tuple[Path, int, str]) -> None:
    """SIGTERM to rank 1: both ranks end with status TERMINATED after the same step, a checkpoint of
    it is written, the command that goes on is shown, and torchrun, whose own exit code is 1, names
    143 as the rank's."""
    run_dir, code, errors = stopped
    ended = outcome(run_dir)
    steps = ended["steps"]
    assert (code, ended["status"], ended["exit_code"]) == (1, "TERMINATED", 143)
    assert SEEN_STEPS <= steps == len(log(run_dir)) < STEPS
    assert [p.name for p in run_dir.glob("ckpt/step-*")] == [f"step-{steps:08}.apr"]
    for rank in range(2):
        assert f"rank {rank}: TERMINATED: stopped after {steps} steps" in errors
    assert "go on with: torchrun --nproc-per-node 2 -m trainer pretrain " in errors
    assert "exitcode  : 143" in errors


def test_the_run_of_two_ranks_goes_on_in_one_process(
    inputs: Path, alone: Path, stopped: tuple[Path, int, str], tmp_path: Path
) -> None:
    """With the same micro-batches a step; other ones are refused. FSDP differs by rounding, which
    80 steps of training amplify."""
    run_dir = tmp_path / "run"
    shutil.copytree(stopped[0], run_dir)
    assert cli.main(words(inputs, run_dir, "--resume")) == 8
    assert cli.main(words(inputs, run_dir, "--resume", "--accumulation", "2")) == 0
    for found, expected in zip(log(run_dir), log(alone), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_run_of_fsdp_goes_on_with_ddp(
    inputs: Path, alone: Path, stopped: tuple[Path, int, str], tmp_path: Path
) -> None:
    """A checkpoint is an ordinary file, whoever wrote it."""
    run_dir = tmp_path / "run"
    shutil.copytree(stopped[0], run_dir)
    done = launch("-m", "trainer", *words(inputs, run_dir, "--resume"))
    assert done.returncode == 0, done.stderr
    for found, expected in zip(log(run_dir), log(alone), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_rank_that_dies_leaves_none_waiting(inputs: Path, tmp_path: Path, parallel: str) -> None:
    """Rank 1 is killed: rank 0 ends within seconds, says so in one line, and records it."""
    run_dir = tmp_path / "run"
    arguments = words(inputs, run_dir, "--parallel", parallel)
    code, errors = launch_and_signal(arguments, run_dir, signal.SIGKILL)
    ended = outcome(run_dir)
    assert (code, ended["status"], ended["exit_code"]) == (1, "PEER_LOST", 16)
    assert "rank 0: PEER_LOST: another rank has ended" in errors
    assert "session.py" not in errors  # torchrun's traceback is none of the trainer's


def test_parallel_without_torchrun_is_refused(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says how to start several processes, and nothing is left behind."""
    assert cli.main(words(inputs, tmp_path / "run", "--parallel", "fsdp")) == 2
    assert "torchrun" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
