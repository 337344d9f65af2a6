"""One process at a time in a run directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer import cli
from trainer.parallel.joint_run import require_same_start
from trainer.run.lock import LOCK, run_lock
from trainer.trainer import PretrainTrainer

Command = Callable[..., list[str]]

HOLDER = """
import sys
from pathlib import Path
from trainer.run.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_refused_and_a_killed_one_leaves_no_obstacle(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume beside a process that holds the run: exit 3, nothing changes; after kill -9, 0."""
    run_dir = tmp_path / "run"
    assert cli.main(command(num_steps=2)) == 0
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
        capsys.readouterr()
        assert cli.main(command(num_steps=2, resume=True)) == 3
        assert "another process is training here" in capsys.readouterr().err
        after = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
        assert after == before
        holder.kill()
    assert (run_dir / LOCK).exists()
    assert cli.main(command(num_steps=2, resume=True)) == 0


def test_two_new_runs_at_once_leave_one(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory was empty when this run was checked; another has begun there meanwhile."""
    run_dir = tmp_path / "run"

    def overtaken(trainer: PretrainTrainer) -> None:
        require_same_start(trainer)
        monkeypatch.undo()
        assert cli.main(command(num_steps=1)) == 0

    monkeypatch.setattr("trainer.run.launch.require_same_start", overtaken)
    assert cli.main(command(num_steps=2)) == 3
    assert len((run_dir / "train.jsonl").read_text().splitlines()) == 1


def test_lock_is_let_go_at_the_end(tmp_path: Path) -> None:
    """One after the other is no conflict."""
    for _ in range(2):
        with run_lock(tmp_path):
            pass
