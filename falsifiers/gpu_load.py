"""A GPU that is certainly busy, and an independent reader of its utilisation."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pynvml  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from falsifiers.subject import Batch

PERIOD_S = 0.1

_CYCLES = 40_000_000
"""How long one kernel waits: 20 ms at 2 GHz."""

_AHEAD = 4
"""Kernels that wait at a time. Together they outlast a small model's step."""

_WINDOW = 75
"""Kernels before the first step: the driver averages over a second, which is then full."""


def keeping_busy(batch: Batch, steps: int) -> Iterator[Batch]:
    """`batch`, once a step, while kernels are queued beside the trainer's work.

    They wait on one multiprocessor, on a stream of their own: to the driver the card is busy all
    the time, whatever share of it a step fills, and the step runs on undisturbed.
    """
    import torch

    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    queued: deque[torch.cuda.Event] = deque()
    for number in range(_WINDOW + steps):
        if len(queued) == _AHEAD:
            queued.popleft().synchronize()
        with torch.cuda.stream(aside):
            torch.cuda._sleep(_CYCLES)  # type: ignore[no-untyped-call]
        queued.append(aside.record_event())
        if number >= _WINDOW:
            yield batch


class UtilisationReader:
    """Samples the first visible GPU through NVML in a thread of its own.

    Entering raises `pynvml.NVMLError` where NVML cannot be asked: a reader that measures nothing
    must not look like a trainer that disagrees with it.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._samples: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> UtilisationReader:
        self._handle = _first_visible()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def late_mean(self) -> float:
        """Mean utilisation, percent, over the second half of the time sampled."""
        if not self._samples:
            return math.nan  # over before the first sample: whatever is compared with it fails
        begin, end = self._samples[0][0], self._samples[-1][0]
        late = [percent for at, percent in self._samples if at >= (begin + end) / 2]
        return sum(late) / len(late)

    def _sample(self) -> None:
        while not self._stop.wait(PERIOD_S):
            percent = float(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
            self._samples.append((time.monotonic(), percent))


def _first_visible() -> Any:
    pynvml.nvmlInit()
    selector = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if selector.startswith("GPU-"):
        return pynvml.nvmlDeviceGetHandleByUUID(selector)
    return pynvml.nvmlDeviceGetHandleByIndex(int(selector or 0))
