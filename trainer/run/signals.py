"""Ctrl-C and SIGTERM as a request to finish the step and save, instead of an exception anywhere."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from trainer.errors import Interrupted, Terminated, TrainerError

_CAUGHT = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, the first signal is only noted; a second Ctrl-C raises KeyboardInterrupt.

    Outside the main thread no handler can be set, and signals keep their meaning.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _CAUGHT}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether the run shall stop after the step it is in."""
        return self.received is not None

    def as_error(self, message: str) -> TrainerError:
        """The error that ends the run for the signal that was received."""
        return (Terminated if self.received == signal.SIGTERM else Interrupted)(message)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
