"""Files that are either complete or absent, so that a killed process never leaves half of one."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


class _Unbuffered(io.FileIO):
    """A raw file whose `write` takes all it is given, where the system takes 2 GiB at most."""

    def write(self, content: Any, /) -> int:
        with memoryview(content).cast("B") as view:
            done = 0
            while done < len(view):
                done += super().write(view[done:]) or 0
            return done


def partial_path(path: Path) -> Path:
    """Where a file is written before it gets its name: `path.partial`, in the same folder."""
    return path.with_name(path.name + ".partial")


def sync_folder(folder: Path) -> None:
    """Make a rename inside a folder outlast a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def durable_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields `path.partial` for others to write; it gets its name once the block has ended well.

    The bytes are on the disk before the rename, and the rename before this returns. If the
    block raises, the partial file is removed and whatever stood at `path` is untouched. A
    partial file that a killed process left behind is overwritten. The folder must exist.

    Raises:
        OSError: the file cannot be written (no space, no permission).
    """
    target = Path(path)
    partial = partial_path(target)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


@contextlib.contextmanager
def durable_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """`durable_path`, opened for writing.

    The file is unbuffered, so that gigabytes go to the system straight from memory: gather small
    pieces before writing them.

    Raises:
        OSError: the file cannot be written (no space, no permission).
    """
    with durable_path(path) as partial, _Unbuffered(partial, "wb") as file:
        yield file
