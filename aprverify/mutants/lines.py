"""Which lines of a trainer a process executes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any


def watch_lines(log: Path, package: str) -> None:
    """Append each line of a file below the folder `package` to `log` when it is first executed.

    In this thread, in threads started later, and in forks. Written at once: a process that is
    killed has told what it did.
    """
    seen: set[tuple[str, int]] = set()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    prefix = package.rstrip(os.sep) + os.sep

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            place = (frame.f_code.co_filename, frame.f_lineno)
            if place not in seen:
                seen.add(place)
                # A module's own lines, and a class body's, run wherever it is imported.
                called = int(bool(frame.f_code.co_flags & _IN_FUNCTION))
                name = place[0][len(prefix) :]
                os.write(descriptor, f"{name}\t{place[1]}\t{called}\n".encode())
        return line

    def call(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        return line if frame.f_code.co_filename.startswith(prefix) else None

    threading.settrace(call)
    sys.settrace(call)


_IN_FUNCTION = 0x2
"""``CO_NEWLOCALS`` of `inspect`: code of a function and not of a module or class."""


def stop_watching() -> None:
    """No more lines of this thread."""
    sys.settrace(None)


def read_lines(texts: Iterable[str]) -> dict[str, list[int]]:
    """The lines executed in functions, by file below the package."""
    found: dict[str, set[int]] = {}
    for text in texts:
        file, line, called = text.rstrip("\n").split("\t")
        if called == "1":
            found.setdefault(file, set()).add(int(line))
    return {file: sorted(lines) for file, lines in sorted(found.items())}
