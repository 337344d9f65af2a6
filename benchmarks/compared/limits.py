"""A process that is ended if it says nothing for too long, or takes too much memory.

An alarm inside a process is not enough: a defect may swallow it, hang where none is set, or fill
the memory of the machine first. Memory is what the process and all that it started hold resident,
read from ``/proc``; where there is none, only time is limited.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LOOKS = 0.2
"""Seconds between two looks at a process."""
_ENDING = 10.0
"""Seconds that processes which were ended may take until they hold nothing."""
_PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Limits:
    """What one trial, a defect under one check, may take.

    Attributes:
        seconds: of wall time; a clean trial takes at most ten of processor time.
        gib: of resident memory; a clean trial takes one.
    """

    seconds: float = 600.0
    gib: float = 6.0


def run_limited(
    argv: Sequence[str], environment: Mapping[str, str], answers: Path, limits: Limits
) -> tuple[int, str]:
    """Run to the end, or to a limit: the exit status, and what was exceeded, or "".

    Args:
        argv: of the process. It is ended with all that it started.
        environment: of the process.
        answers: a file that grows with each of its answers; time is counted from the last.
        limits: of one answer.
    """
    process = subprocess.Popen(argv, env=dict(environment), start_new_session=True)
    try:
        exceeded = _watch(process, answers, limits)
    finally:
        _end(process)
    return process.returncode, exceeded


def _watch(process: subprocess.Popen[bytes], answers: Path, limits: Limits) -> str:
    size, since = -1, time.monotonic()
    while process.poll() is None:
        grown = answers.stat().st_size if answers.exists() else 0
        if grown != size:
            size, since = grown, time.monotonic()
        if time.monotonic() - since > limits.seconds:
            return f"more than {limits.seconds:g} s"
        if _resident(process.pid) > limits.gib * 2**30:
            return f"more than {limits.gib:g} GiB"
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOKS)
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of it may run on, also where it ended by itself."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + _ENDING
    # The kernel ends its children some time after it has told them.
    while any(_processes(process.pid)) and time.monotonic() < until:
        time.sleep(_ENDING / 1000)


def _resident(session: int) -> int:
    """Bytes that the processes of a session hold."""
    return sum(_processes(session)) * os.sysconf("SC_PAGE_SIZE")


def _processes(session: int) -> Iterator[int]:
    """For each process of a session that holds memory, how many pages: an ended one holds none."""
    for folder in _PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            # Behind the name, which may hold anything: state, parent, group, session, …
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and int(fields[21]):
                yield int(fields[21])
