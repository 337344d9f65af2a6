"""Writing files so that a failure says which: a full disk by itself says only that it is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let any OSError raised in here name a path, `path` where it names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8.

    Raises:
        OSError: it names `path`.
    """
    with naming(path):
        path.write_text(text, encoding="utf-8")
