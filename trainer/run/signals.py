"""Ctrl-C, SIGTERM and SIGHUP as a request to finish the step and save, not as an exception."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from trainer.errors import Interrupted, Terminated, TrainerError
from trainer.parallel.ranks import Ranks

_TERMINATING = (signal.SIGTERM, signal.SIGHUP)
_CAUGHT = (signal.SIGINT, *_TERMINATING)


class StopSignals:
    """While entered, the first signal is only noted; a second Ctrl-C raises KeyboardInterrupt.

    Outside the main thread no handler can be set, and signals keep their meaning. A signal that was
    ignored before stays so: that is what nohup does.

    Args:
        ranks: all of them stop if one receives a signal. torchrun sends SIGTERM to the rest as soon
            as one rank has ended, so several ranks ignore it from the end of the block on.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            caught = [n for n in _CAUGHT if signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ranks.world.size > 1 and signal.SIGTERM in self._before:
            self._before[signal.SIGTERM] = signal.SIG_IGN
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether the run shall stop after the step it is in; all ranks ask, and agree."""
        agreed = self._ranks.greatest(self.received or 0)
        if agreed:
            self.received = agreed  # else one may have come meanwhile: it counts the next time
        return agreed != 0

    def as_error(self, message: str) -> TrainerError:
        """The error that ends the run for the signal that was received."""
        return (Terminated if self.received in _TERMINATING else Interrupted)(message)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
