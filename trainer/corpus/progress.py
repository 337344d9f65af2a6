"""How far a preparation is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm  # type: ignore[import-untyped]

PERIOD_S = 10.0


class Progress:
    """Counts bytes of documents on stderr.

    Args:
        label: what is going on.
        total: bytes there are.
        done: bytes that an earlier command finished.
    """

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self._label, self._total, self._done, self._at_start = label, total, done, done
        self._started = self._printed = time.monotonic()
        self._bar = (
            tqdm(desc=label, total=total, initial=done, unit="B", unit_scale=True, leave=False)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int) -> None:
        """`count` more bytes are finished."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._printed >= PERIOD_S:
            self._printed = time.monotonic()
            rate = (self._done - self._at_start) / (self._printed - self._started)
            print(
                f"{self._label}: {self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB, "
                f"{rate / 1e6:.1f} MB/s",
                file=sys.stderr,
                flush=True,
            )
