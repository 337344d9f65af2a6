"""SIGTERM as a way to stop: what `timeout`, or a CI job that is cancelled, sends where a person
would press Ctrl-C.

By default it ends a process at once, and a run without a footer is no evidence of anything.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came. Whoever copes with Ctrl-C copes with it."""


def stop_at_sigterm() -> Callable[[], None]:
    """Let the first SIGTERM raise `Terminated`, and others do nothing; returns what undoes this.

    One request may arrive twice, since whoever asks a whole group asks also the one that passes it
    on, and the second must not break into the closing of a run. Processes that are started have
    SIGTERM's default again: a function, unlike "ignored", does not outlive their exec.
    Outside the main thread, where Python lets nobody listen to signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = signal.signal(signal.SIGTERM, _stop)
    return lambda: _restore(before)


@contextmanager
def stopping_at_sigterm() -> Iterator[None]:
    """`stop_at_sigterm` inside the block."""
    restore = stop_at_sigterm()
    try:
        yield
    finally:
        restore()


def _restore(before: Callable[[int, FrameType | None], object] | int | None) -> None:
    # None: a handler that was not set by Python, and that it cannot set again.
    if before is not None:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, _already_stopping)
    raise Terminated


def _already_stopping(number: int, frame: FrameType | None) -> None:
    pass
