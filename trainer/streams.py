"""Standard streams that cannot end a command.

A run goes on for days; the terminal, the pipe or the disk behind its messages may not.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any

_ERRORS = "aprtrain.path_bytes"


class _Tolerant(io.FileIO):
    """A raw stream that drops what meets an error of the type `ignored`, or any second one."""

    def __init__(self, descriptor: int, ignored: type[OSError]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._ignored = ignored

    def write(self, content: Any, /) -> int:
        try:
            written = super().write(content)
        except self._ignored:
            written = None
        except OSError:
            self._ignored = OSError  # told once; what is still buffered must not fail at exit
            raise
        return memoryview(content).nbytes if written is None else written


def secure() -> None:
    """Let stderr fail silently and stdout lose its reader, as under ``| head``; a full disk behind
    stdout is still an error. Paths that are not UTF-8 are written as the bytes they are.
    """
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    codecs.register_error(_ERRORS, _path_bytes)
    sys.stdout = _text(1, BrokenPipeError, sys.stdout)
    sys.stderr = _text(2, OSError, sys.stderr)


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        # Or the next file to be opened, a checkpoint perhaps, would get this number.
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)


def _text(descriptor: int, ignored: type[OSError], before: io.TextIOBase | Any) -> Any:
    return io.TextIOWrapper(
        io.BufferedWriter(_Tolerant(descriptor, ignored)),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors=_ERRORS,
        line_buffering=True,
    )


def _path_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)
