"""Commands in forks end as processes of their own, and are reached where they are meant to be."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from falsifiers import stopped_runs
from falsifiers.forks import begin_command, exit_code, run_command

PROGRAM = """
import os, signal, sys, time, torch
if sys.argv[1] == "crash":
    raise OSError("no such thing")
if sys.argv[1] == "die":
    os.kill(os.getpid(), signal.SIGTERM)
began, weight, caught = time.perf_counter(), torch.ones(1, requires_grad=True), []
signal.signal(signal.SIGTERM, lambda *_: caught.append(step))
for step in range(4):
    weight.sum().backward()
print(caught, round(time.perf_counter() - began), file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``python -m`` of a module that crashes, dies of a signal, or takes four steps."""
    (tmp_path / "forked_program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    return [sys.executable, "-m", "forked_program"]


@pytest.mark.parametrize("ending", [("crash", 1), ("die", -signal.SIGTERM), ("step", 7)])
def test_a_command_in_a_fork_ends_as_in_a_process(
    program: list[str], ending: tuple[str, int]
) -> None:
    """A crash has Python's exit code, and handlers of this process are not the command's."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        assert run_command([*program, ending[0]]) == ending[1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_a_crash_says_is_kept(program: list[str], tmp_path: Path) -> None:
    """The traceback is in the file for standard error."""
    assert exit_code(begin_command([*program, "crash"], tmp_path / "said")) == 1
    assert "OSError: no such thing" in (tmp_path / "said").read_text()


def test_only_python_modules_are_begun(tmp_path: Path) -> None:
    """Another command would be in another process, where nothing can be arranged."""
    with pytest.raises(ValueError, match="only python -m"):
        begin_command(["true"], tmp_path / "said")


def test_a_signal_comes_in_its_step_and_takes_its_time(program: list[str], tmp_path: Path) -> None:
    """In the backward pass of step 2 and no other; this process keeps its clock."""
    began = time.perf_counter()
    arrange = stopped_runs.signalled("SIGTERM", 2)
    ended = stopped_runs.ended([*program, "step"], tmp_path / "said", arrange)
    assert ended == stopped_runs.Ended(7, "[2] 1000\n")
    assert time.perf_counter() - began < 500
