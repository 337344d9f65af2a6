"""Folders that take seconds to make and that entries share, also between workers of one session."""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


def made_once(name: str, key: object, make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled for `key`; whoever asks first makes it, the others wait.

    Args:
        name: for people who look into the folder above.
        key: what the content follows from; its `repr` must be the same in each worker.
        make: fills the empty folder that it is given. Its error goes on to the caller, and the next
            one who asks tries again.
    """
    folder = _shared() / f"{name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
    complete = folder / ".complete"
    with _locked(folder.with_suffix(".lock")):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


@cache
def _shared() -> Path:
    """A folder for this session's workers; the last of them to leave removes it."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"alone-{os.getpid()}"
    root = Path(tempfile.gettempdir()) / f"aprverify-made-{os.getuid()}-{session}"
    user = root / f"user-{os.getpid()}"

    def leave() -> None:
        with _locked(root.with_suffix(".lock")):
            user.unlink(missing_ok=True)
            if not any(root.glob("user-*")):
                shutil.rmtree(root, ignore_errors=True)
                root.with_suffix(".lock").unlink(missing_ok=True)

    with _locked(root.with_suffix(".lock")):
        root.mkdir(mode=0o700, exist_ok=True)
        user.touch()
    atexit.register(leave)
    return root


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
