"""Work in forks of this process, which start in milliseconds and have torch and a planted defect.

A command that is ``python -m`` runs in one too: it is spared importing torch, and something can be
made to happen to it at a moment that no clock decides.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

_DONE, _FAILED = 0, 1
_SECONDS = 60


def run_command(command: Sequence[str]) -> int:
    """Exit code of a command; ``python -m`` runs in a fork."""
    if list(command[:2]) != [sys.executable, "-m"]:
        return subprocess.run(command, capture_output=True, check=False).returncode
    return exit_code(begin_command(command, Path(os.devnull)))


def begin_command(
    command: Sequence[str], messages: Path, before: Callable[[], Any] = lambda: None
) -> int:
    """The fork in which a ``python -m`` command has been begun; `exit_code` waits for it.

    Args:
        messages: the file for its standard error; its output goes nowhere.
        before: called in the fork, before the command.

    Raises:
        ValueError: it is another command.
    """
    if list(command[:2]) != [sys.executable, "-m"]:
        raise ValueError(f"only python -m can run in a fork: {command[0]}")

    def run() -> None:
        _forget_modules(command)
        _forget_handlers()
        sys.argv = list(command[2:])
        with open(os.devnull, "w") as nowhere, messages.open("w") as said:
            os.dup2(said.fileno(), 2)  # what was given the stream when it was imported writes there
            sys.stdout, sys.stderr = nowhere, said
            try:
                before()
                runpy.run_module(command[2], run_name="__main__", alter_sys=True)
            except Exception:
                traceback.print_exc()
                raise

    return _begin(run)


def exit_code(fork: int) -> int:
    """Wait for a fork that `begin_command` began; below 0, the signal that killed it."""
    return os.waitstatus_to_exitcode(_wait(fork))


def in_fork(action: Callable[[], Any], closing: int | None = None) -> int:
    """The wait status of a fork that runs `action`; `closing` is closed in this process."""
    child = _begin(action)
    if closing is not None:
        os.close(closing)
    return _wait(child)


def killed_by(status: int, number: int) -> bool:
    """Whether a wait status is that of a process that signal `number` killed."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == number


def _forget_modules(command: Sequence[str]) -> None:
    """Let the packages that a command names be imported anew, as a process of its own does.

    A planted defect is in them already, and the command plants it by itself. pytest's import hook
    goes as well: it rewrites modules, and cannot run one.
    """
    named = {word for word in command if hasattr(sys.modules.get(word), "__path__")}
    for name in [n for n in sys.modules if n.partition(".")[0] in named]:
        del sys.modules[name]
    sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_pytest.")]


def _forget_handlers() -> None:
    """Let signals mean what they mean to a process of its own, and not what the suite does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _begin(action: Callable[[], Any]) -> int:
    with warnings.catch_warnings():
        # From 3.12 on Python warns of threads, which are gone in the fork: it waits for none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _become(action)
    return child


def _wait(child: int) -> int:
    status = os.waitpid(child, 0)[1]
    if killed_by(status, signal.SIGALRM):
        raise RuntimeError(f"a fork hung for {_SECONDS} seconds; look at its threads and locks")
    return status


def _become(action: Callable[[], Any]) -> NoReturn:
    status = _FAILED
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_SECONDS)
    try:
        import torch

        torch.set_num_threads(1)  # OpenMP's other threads did not come along, and would be awaited
        action()
        status = _DONE
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else _DONE if end.code is None else _FAILED
    finally:
        os._exit(status)
