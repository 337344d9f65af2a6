"""Saves that are killed, in forks of this process, and a record of how a save reaches the disk.

Any trainer can be killed so: by the kernel, at the byte where a file would grow beyond a limit,
and by this module, before each call that opens, syncs, renames or removes. A fork starts in
milliseconds and has the instance, and a planted defect, in memory.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from falsifiers.forks import in_fork, killed_by

_EVENTS = ("open", "os.rename", "os.remove", "os.truncate", "shutil.copyfile", "shutil.move")


def killed_at_byte(save: Callable[[], Any], limit: int) -> bool:
    """Run `save` in a fork that dies where a file would become longer than `limit` bytes.

    Returns:
        Whether it died there; False if it ended by itself.
    """

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        save()

    return killed_by(in_fork(limited), signal.SIGXFSZ)


def killed_before_call(save: Callable[[], Any], call: int) -> bool:
    """Run `save` in a fork that dies just before its call number `call`, from 0.

    Returns:
        Whether it made so many calls.
    """
    left = call

    def count(*_: object) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def watched() -> None:
        _watch(count)
        save()

    return killed_by(in_fork(watched), signal.SIGKILL)


def recorded_calls(save: Callable[[], Any]) -> list[list[str]]:
    """The calls of `save`, run to its end in a fork: ``[call, path, …]``, in order.

    An ``fsync`` is followed by the path of what it synced and the size that it had.
    """
    import json

    reader, writer = os.pipe()

    def watched() -> None:
        calls: list[list[str]] = []
        _watch(lambda call, *details: calls.append([call, *map(str, details)]))
        save()
        done = list(calls)
        with os.fdopen(writer, "w") as stream:
            json.dump(done, stream)

    in_fork(watched, closing=writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    return json.loads(text) if text else []


@contextmanager
def disk_of(limit: int) -> Iterator[None]:
    """Inside, a file of this process can take `limit` bytes and no more, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _watch(note: Callable[..., None]) -> None:
    """Call ``note(call, path, …)`` before each call that changes a file; for the fork's life."""
    sync = os.fsync

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS:
            return
        if event == "open" and not _creates(arguments):
            return
        note(event, *arguments[:2])

    def fsync(fd: Any) -> None:
        descriptor = fd if isinstance(fd, int) else fd.fileno()
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        note("fsync", path, os.fstat(descriptor).st_size)
        sync(descriptor)

    sys.addaudithook(hook)
    os.fsync = fsync


def _creates(arguments: tuple[Any, ...]) -> bool:
    path, _, flags = arguments
    return isinstance(path, str | bytes | os.PathLike) and bool(flags & (os.O_CREAT | os.O_WRONLY))


def syncs_in_order(calls: Sequence[Sequence[str]], target: Path, size: int) -> tuple[bool, bool]:
    """Whether the bytes, and then the name, of `target` were made durable.

    Returns:
        Whether what was renamed to `target` had been synced at its full `size` before; and whether
        its folder was synced after the rename.
    """
    renames = [i for i, c in enumerate(calls) if c[0] == "os.rename" and c[2] == str(target)]
    if len(renames) != 1:
        return False, False
    at = renames[0]
    written = ["fsync", calls[at][1], str(size)]
    folder = str(target.parent)
    after = any(call[:2] == ["fsync", folder] for call in calls[at + 1 :])
    return written in [list(call) for call in calls[:at]], after
