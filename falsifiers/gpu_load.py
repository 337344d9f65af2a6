"""An independent reader of GPU utilisation, to hold a trainer's own figure against."""

from __future__ import annotations

import math
import os
import threading
import time
from types import TracebackType
from typing import Any

import pynvml  # type: ignore[import-untyped]

PERIOD_S = 0.1


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
