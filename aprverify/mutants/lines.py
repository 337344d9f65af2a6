"""Which lines of a trainer a process executes, and those that it starts.

One byte a line, in a file that all of them map into memory: nothing is written that a limit on
files could stop or a full disk could fail, and a process that is killed has told what it did.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

_IN_FUNCTION = 0x2
"""``CO_NEWLOCALS`` of `inspect`: code of a function, and not of a module or class."""


def new_log(log: Path, package: Path) -> dict[str, int]:
    """Make an empty log for the files below the folder `package`.

    Returns:
        Where the bytes of each file begin, by its full path.
    """
    places: dict[str, int] = {}
    size = 0
    for path in sorted(package.rglob("*.py")):
        places[str(path)] = size
        size += path.read_bytes().count(b"\n") + 2
    log.write_bytes(bytes(size))
    return places


def watch_lines(log: Path, places: Mapping[str, int]) -> None:
    """Mark each line of a function that is executed from here on.

    In this thread, in threads started later, and in forks. A module's own lines and those of a
    class body run wherever it is imported, and tell nothing.
    """
    with log.open("r+b") as file:
        marks = mmap.mmap(file.fileno(), 0)

    def call(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        begin = places.get(code.co_filename)
        if begin is None or not code.co_flags & _IN_FUNCTION:
            return None

        def line(frame: FrameType, event: str, _: Any) -> Any:
            if event == "line":
                marks[begin + frame.f_lineno] = 1
            return line

        return line

    threading.settrace(call)
    sys.settrace(call)


def stop_watching() -> None:
    """No more lines of this thread."""
    sys.settrace(None)


def read_lines(log: Path, places: Mapping[str, int], package: Path) -> dict[str, list[int]]:
    """The lines that were executed, by file below `package`."""
    marks = log.read_bytes()
    ends = [*list(places.values())[1:], len(marks)]
    found = {}
    for (path, begin), end in zip(places.items(), ends, strict=True):
        if lines := [place - begin for place in range(begin, end) if marks[place]]:
            found[os.path.relpath(path, package)] = lines
    return found
