"""Ctrl-C and SIGTERM in a real process: the step is finished, saved, and the run can go on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer import cli
from trainer.errors import Terminated
from trainer.parallel.ranks import Ranks
from trainer.parallel.world import ALONE
from trainer.run import loop
from trainer.run.signals import StopSignals

Command = Callable[..., list[str]]

SIGNALLED = """
import os, sys
from trainer import cli
from trainer.run import loop

original = loop.next_batch

def next_batch(stream, step, planned):
    if step == 5:
        for number in {signals}:
            os.kill(os.getpid(), number)
    return original(stream, step, planned)

loop.next_batch = next_batch
sys.exit(cli.main(sys.argv[1:]))
"""


def signalled(arguments: list[str], *signals: int) -> subprocess.CompletedProcess[str]:
    """Run a command that sends itself `signals` while step 5 is being made ready."""
    program = SIGNALLED.format(signals=signals)
    words = [sys.executable, "-c", program, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def steps(run_dir: Path) -> list[dict[str, Any]]:
    """The log of a run without the metric that a clock decides."""
    lines = (run_dir / "train.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "tokens_per_sec"} for line in lines]


def test_terminated_run_resumes_to_the_very_same_end(command: Command, tmp_path: Path) -> None:
    """SIGTERM in step 5: exit 143 after that step, and the printed command ends bitwise equal.

    Equal are every logged loss, norm and rate, and every byte of the last checkpoint: weights,
    moments, position and held-out losses.
    """
    run_dir, whole = tmp_path / "run", tmp_path / "whole"
    trainer = [sys.executable, "-m", "trainer"]
    subprocess.run([*trainer, *command(run_dir=whole)], check=True, capture_output=True)
    done = signalled(command(), 15)
    assert done.returncode == 143, done.stderr
    assert [line["step"] for line in steps(run_dir)] == [0, 1, 2, 3, 4, 5]
    outcome = json.loads((run_dir / "outcome.json").read_text())
    assert outcome["status"] == "TERMINATED"
    assert (run_dir / "ckpt/step-00000006.apr").is_file()
    resume = done.stderr.splitlines()[-1].removeprefix("go on with: ")
    assert resume == outcome["resume_command"]
    name, *arguments = shlex.split(resume)
    assert name == "aprtrain"
    subprocess.run([*trainer, *arguments], check=True, capture_output=True)
    assert steps(run_dir) == steps(whole)
    found = sorted(path.name for path in (run_dir / "ckpt").iterdir())
    assert found == sorted(path.name for path in (whole / "ckpt").iterdir())
    for path in (whole / "ckpt").glob("*.apr"):
        assert (run_dir / "ckpt" / path.name).read_bytes() == path.read_bytes()


def test_interrupted_run_saves_and_exits_130(command: Command, tmp_path: Path) -> None:
    """One Ctrl-C: the step is finished and its checkpoint written."""
    done = signalled(command(), 2)
    assert done.returncode == 130, done.stderr
    assert "aprtrain: INTERRUPTED: " in done.stderr
    assert (tmp_path / "run/ckpt/step-00000006.apr").is_file()


def test_second_interrupt_stops_at_once(command: Command, tmp_path: Path) -> None:
    """Two: step 5 is not taken, nothing new is written, and the last checkpoint stays."""
    done = signalled(command(), 2, 2)
    assert done.returncode == 130, done.stderr
    assert [path.name for path in (tmp_path / "run/ckpt").glob("*.apr")] == ["epoch-000.apr"]
    assert len(steps(tmp_path / "run")) == 5
    assert json.loads((tmp_path / "run/outcome.json").read_text())["status"] == "INTERRUPTED"


@pytest.mark.parametrize("done", [0, 6, 12])
def test_signal_at_an_epochs_end_loses_no_validation(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """Stopped before or after an epoch's steps: the same end, and the last epoch is validated."""
    run_dir, whole = tmp_path / "run", tmp_path / "whole"
    assert cli.main(command(run_dir=whole, steps_per_epoch=6)) == 0
    original = loop.next_batch

    def signalled_in_last(stream: Any, step: int, planned: int) -> Any:
        if step == done - 1:
            monkeypatch.setattr(StopSignals, "requested", lambda signals: True)
        return original(stream, step, planned)

    monkeypatch.setattr(loop, "next_batch", signalled_in_last)
    if done == 0:
        monkeypatch.setattr(StopSignals, "requested", lambda signals: True)
    assert cli.main(command(steps_per_epoch=6)) == 130
    monkeypatch.undo()
    found = sorted(path.name for path in (run_dir / "ckpt").glob("*.apr"))
    assert found == ["epoch-000.apr"] * (done == 12) + [f"step-{done:08d}.apr"]
    assert cli.main(command(resume=True, steps_per_epoch=6)) == 0
    assert steps(run_dir) == steps(whole)
    for name in ("epoch-000.apr", "epoch-001.apr"):
        assert (run_dir / "ckpt" / name).read_bytes() == (whole / "ckpt" / name).read_bytes()


@pytest.mark.parametrize("quiet", [True, None])
def test_progress_goes_to_stderr_and_json_to_stdout(
    command: Command, capsys: pytest.CaptureFixture[str], quiet: bool | None
) -> None:
    """With --json, stdout is one line, the outcome; --no-progress leaves single steps out."""
    assert cli.main(command(json=True, num_steps=2, no_progress=quiet)) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["steps"] == 2
    assert ("step 1/2" in shown.err) is (quiet is None)
    assert "epoch 0  train loss" in shown.err


def test_closed_terminal_saves_as_sigterm_does(command: Command, tmp_path: Path) -> None:
    """SIGHUP: the step is finished and its checkpoint written, exit 143."""
    done = signalled(command(), 1)
    assert done.returncode == 143, done.stderr
    assert "aprtrain: TERMINATED: " in done.stderr
    assert (tmp_path / "run/ckpt/step-00000006.apr").is_file()


def test_ignored_signal_stays_ignored(command: Command, tmp_path: Path) -> None:
    """Under nohup, a closed terminal does not stop the run."""
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    words = [sys.executable, "-c", program + SIGNALLED.format(signals=(1,)), *command()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(steps(tmp_path / "run")) == 12


def test_a_signal_that_comes_while_ranks_agree_is_not_lost() -> None:
    """It is too late for this step's answer, and is the answer to the next question."""

    class SignalledMeanwhile(Ranks):
        def greatest(self, number: int) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return number

    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(SignalledMeanwhile(ALONE)) as signals:
        assert [signals.requested(), signals.requested()] == [False, True]
        assert isinstance(signals.as_error(""), Terminated)
    assert signal.getsignal(signal.SIGTERM) == before
