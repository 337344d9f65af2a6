"""Which files a list of sources stands for, in an order that no file system decides."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from trainer.errors import DataError

DEFAULT_INCLUDE = ("*.py", "*.md", "*.rst", "*.txt")


class Skip(StrEnum):
    """Why a file is not a document of the dataset."""

    EMPTY = "empty"
    BINARY = "binary"
    NOT_UTF8 = "not_utf8"
    TOO_LARGE = "too_large"
    DUPLICATE = "duplicate"
    ALSO_HELD_OUT = "also_held_out"
    UNREADABLE = "unreadable"
    REACHED_AGAIN = "reached_again"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A regular file of a source.

    Attributes:
        path: where to read it.
        name: relative to its source, with forward slashes; the name itself for a single file.
        size: bytes, when it was found.
    """

    path: str
    name: str
    size: int

    @property
    def is_shard(self) -> bool:
        """Whether it holds token ids instead of text."""
        return self.path.endswith(".bin")


def find_files(
    sources: Sequence[Path], include: Sequence[str], exclude: Path
) -> tuple[list[SourceFile], Counter[Skip]]:
    """The files of `sources`, sorted by name in bytes, then by the position of their source.

    A folder is searched recursively for names that match a pattern of `include`; a file given by
    itself needs no match. Links are followed, and a file or folder reached twice counts once.

    Args:
        exclude: a folder that is never entered: the dataset's own.

    Raises:
        DataError: a source does not exist or is neither a file nor a folder.
    """
    search = _Search(tuple(include), exclude)
    found: list[tuple[bytes, int, SourceFile]] = []
    for position, source in enumerate(sources):
        for file in search.files(source):
            found.append((os.fsencode(file.name), position, file))
    found.sort(key=lambda entry: entry[:2])
    return [file for _, _, file in found], search.skipped


class _Search:
    def __init__(self, include: tuple[str, ...], exclude: Path) -> None:
        self.skipped: Counter[Skip] = Counter()
        self._include = include
        self._seen: set[tuple[int, int]] = set()
        if exclude.is_dir():
            self._seen.add(_identity(exclude.stat()))

    def files(self, source: Path) -> Iterator[SourceFile]:
        try:
            status = source.stat()
        except OSError as error:
            raise DataError(f"{source}: {error.strerror}; check the path of the source") from error
        if stat.S_ISDIR(status.st_mode):
            yield from self._folder(str(source), "", status)
        elif stat.S_ISREG(status.st_mode):
            yield from self._file(str(source), source.name, status)
        else:
            raise DataError(f"{source}: neither a file nor a folder; name files or folders")

    def _folder(self, path: str, prefix: str, status: os.stat_result) -> Iterator[SourceFile]:
        if _identity(status) in self._seen:
            return
        self._seen.add(_identity(status))
        try:
            with os.scandir(path) as entries:
                # Sorted, so that of two links to one folder the same one always comes first.
                ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError:
            self.skipped[Skip.UNREADABLE] += 1
            return
        for entry in ordered:
            yield from self._entry(entry, prefix)

    def _entry(self, entry: os.DirEntry[str], prefix: str) -> Iterator[SourceFile]:
        wanted = any(fnmatchcase(entry.name, pattern) for pattern in self._include)
        try:
            if not wanted and not entry.is_dir():
                return
            status = entry.stat()
        except OSError:
            self.skipped[Skip.UNREADABLE] += wanted
            return
        if stat.S_ISDIR(status.st_mode):
            yield from self._folder(entry.path, f"{prefix}{entry.name}/", status)
        elif stat.S_ISREG(status.st_mode):
            yield from self._file(entry.path, prefix + entry.name, status)

    def _file(self, path: str, name: str, status: os.stat_result) -> Iterator[SourceFile]:
        if _identity(status) in self._seen:
            self.skipped[Skip.REACHED_AGAIN] += 1
            return
        self._seen.add(_identity(status))
        yield SourceFile(path, name, status.st_size)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
