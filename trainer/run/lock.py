"""One process at a time in a run directory: two that resume one run would write over each other."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import ConfigurationError

LOCK = "run.lock"


@contextmanager
def run_lock(root: Path) -> Iterator[None]:
    """Hold the run in the folder `root`.

    The system lets go of the lock when the process ends, however it ends; the empty file stays
    and means nothing.

    Raises:
        ConfigurationError: another process holds the run.
        OSError: the file cannot be made.
    """
    with (root / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"{root}: another process is training here; wait for it, end it, or choose another "
                "--run-dir"
            ) from error
        except OSError:
            # Some network file systems have no locks; a run must be possible there all the same.
            pass
        yield
