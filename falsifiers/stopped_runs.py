"""Runs of the pretrain command that something happens to, at a moment that no clock decides.

The moments are calls of torch that any trainer makes: the backward pass of a step, and a collective
operation over whole numbers, by which hosts agree on something. What happens is a signal to the
process itself, or another process that starts in the same directory while this one is in its step.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from falsifiers import tiny_runs
from falsifiers.forks import begin_command, exit_code
from falsifiers.made_once import made_once
from falsifiers.run_directory import RunRecord
from falsifiers.subject import Configuration, Subject
from falsifiers.weight_files import write_folder

RANKS = 2

_PASSING = 1000.0
"""Seconds that pass, by its own clock, in the step in which a process is signalled: more than all
else that it does, so that time which is not counted shows."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code, and what it wrote to standard error."""

    exit_code: int
    messages: str


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped in a step, went on by what it said itself, and its twin.

    Attributes:
        process: the one that was stopped.
        left: the run as that process left it.
        resumed: the same run, after the command that it named.
        whole: a run of the same settings that nobody stopped.
    """

    process: Ended
    left: RunRecord
    resumed: RunRecord
    whole: RunRecord


@dataclass(frozen=True)
class Settings:
    """How long a run is: its optimizer steps, and those of an epoch."""

    steps: int
    epoch: int


def stopped_run(
    subject: Subject, configuration: Configuration, settings: Settings, name: str, step: int
) -> Stopped:
    """The run that the signal called `name` reaches in the backward pass of `step`."""
    command = partial(pretrain, subject, configuration, settings)

    def make(folder: Path) -> None:
        run, whole = folder / "run", folder / "whole"
        process = ended(command(run), folder / "said", signalled(name, step))
        (folder / "exit-code").write_text(str(process.exit_code))
        shutil.copytree(run, folder / "left")
        ended(resume(subject, run), folder / "said-resumed")
        ended(command(whole), folder / "said-whole")

    folder = made_once(f"stopped-by-{name}", (command(Path("run")), step), make)
    left, resumed, whole = (
        RunRecord(subject.run_directory(folder / part)) for part in ("left", "run", "whole")
    )
    code, said = int((folder / "exit-code").read_text()), (folder / "said").read_text()
    return Stopped(Ended(code, said), left, resumed, whole)


def pretrain(
    subject: Subject, configuration: Configuration, settings: Settings, run: Path, *more: str
) -> list[str]:
    """The command of a run in the folder `run`, with `more` options."""

    def write(folder: Path) -> None:
        write_folder(folder / "weights", configuration, tiny_runs.init_weights(configuration))

    options = {
        "device": "cpu", "dtype": "float32", "compile": "off", "deterministic": True,
        "init": made_once("initial-weights", configuration, write) / "weights",
        "tokenizer": tiny_runs.byte_tokenizer(),
        "dataset": tiny_runs.dataset(subject, "few"), "run-dir": run,
        "num-steps": settings.steps, "steps-per-epoch": settings.epoch, "batch-size": 2,
        "seq-length": tiny_runs.LENGTH, "lr": 0.003, "warmup": 1, "seed": 0,
    }  # fmt: skip
    return subject.command("pretrain", *tiny_runs.option_words(options), *more)


def resume(subject: Subject, run: Path) -> list[str]:
    """The command that a run itself says would go on from where it was stopped; bare if none."""
    told = RunRecord(run).outcome.get("resume_command") or ""
    return subject.command(*shlex.split(told)[1:])


def ended(command: Sequence[str], said: Path, before: Callable[[], Any] = lambda: None) -> Ended:
    """Run a command in a fork to its end, what it says on standard error going to `said`."""
    code = exit_code(begin_command(command, said, before))
    return Ended(code, said.read_text())


def signalled(name: str, step: int) -> Callable[[], None]:
    """What lets a process send itself the signal called `name` in the backward pass of `step`."""

    def act() -> None:
        _let_pass(_PASSING)
        _send_itself(getattr(signal, name))

    return partial(in_backward, step, act)


def in_backward(call: int, act: Callable[[], Any]) -> None:
    """Let `act` happen in backward pass number `call` of this process, from 0; once."""
    _in_call(torch.autograd, "backward", lambda *_: True, call, act)


def stopped_ranks(command: Sequence[str], folder: Path, rank: int, agreement: int) -> list[Ended]:
    """Two ranks of a command, of which one gets SIGTERM while they agree on something.

    Args:
        folder: for what the ranks say.
        agreement: which one, from 0, counted from when the rank handles the signal.
    """
    # As torchrun has it: the store is there before the ranks, on a port that nobody else has.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    signal_itself = partial(_send_itself, signal.SIGTERM)
    forks = []
    for number in range(RANKS):

        def arrange(number: int = number) -> None:
            os.environ.update(_environment(number, store.port))
            if number == rank:
                _as_ranks_agree(agreement, signal_itself)

        forks.append(begin_command(command, folder / f"said-{number}", arrange))
    codes = [exit_code(fork) for fork in forks]
    return [Ended(code, (folder / f"said-{n}").read_text()) for n, code in enumerate(codes)]


def _as_ranks_agree(agreement: int, act: Callable[[], Any]) -> None:
    def is_agreement(tensor: torch.Tensor, *_: Any) -> bool:
        return not tensor.is_floating_point() and callable(signal.getsignal(signal.SIGTERM))

    _in_call(dist, "all_reduce", is_agreement, agreement, act)


def _in_call(
    module: Any, name: str, counts: Callable[..., bool], call: int, act: Callable[[], Any]
) -> None:
    original, left = getattr(module, name), call

    def watched(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        result = original(*arguments, **options)
        if counts(*arguments):
            left -= 1
            if left == -1:
                act()
        return result

    setattr(module, name, watched)


def _send_itself(number: int) -> None:
    os.kill(os.getpid(), number)


def _let_pass(seconds: float) -> None:
    for name in ("perf_counter", "time"):
        clock = getattr(time, name)
        setattr(time, name, lambda clock=clock: clock() + seconds)


def _environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun tells a rank."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
