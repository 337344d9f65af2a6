"""Which trainer made a run: a digest over its own files."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


@cache
def trainer_sha256() -> str:
    """SHA-256 over the lines ``path, NUL, SHA-256 of the bytes`` of this package's Python files.

    Paths are relative to the package, in byte order.
    """
    digest = hashlib.sha256()
    for name, path in sorted(
        (p.relative_to(_PACKAGE).as_posix(), p) for p in _PACKAGE.rglob("*.py")
    ):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
