"""GPU utilisation, measured by NVML in a thread of its own so that no step waits for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

PERIOD_S = 0.25
"""NVML averages over 1/6 to 1 second, so asking more often shows nothing new."""

OLDEST_S = 1.0


@dataclass(frozen=True)
class Utilisation:
    """A measurement with its age in seconds, or the reason why there is none."""

    percent: float | None
    absent_reason: str | None
    age_s: float | None


class GpuSampler:
    """Samples one CUDA device while the context is entered; on a CPU it only says so."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._latest: tuple[float, float] | None = None
        self._absent_reason = "no sample yet"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GpuSampler:
        if self._device.type != "cuda":
            self._absent_reason = f"device is {self._device.type}"
            return self
        self._thread = threading.Thread(target=self._sample, name="gpu-sampler", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def read(self) -> Utilisation:
        """The latest measurement, if it is no older than a second."""
        latest = self._latest
        if latest is None:
            return Utilisation(None, self._absent_reason, None)
        percent, taken = latest
        age = time.monotonic() - taken
        if age > OLDEST_S:
            return Utilisation(None, f"last sample is {age:.1f} s old", age)
        return Utilisation(percent, None, age)

    def _sample(self) -> None:
        try:
            import pynvml  # type: ignore[import-untyped]
        except ImportError:
            self._absent_reason = "nvidia-ml-py is not installed"
            return
        try:
            pynvml.nvmlInit()
            handle = nvml_handle(pynvml, self._device)
            while not self._stop.wait(PERIOD_S):
                percent = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
                self._latest = percent, time.monotonic()
        except pynvml.NVMLError as error:
            self._absent_reason = f"NVML: {error}"


def nvml_handle(nvml: Any, device: torch.device) -> Any:
    """NVML's handle of a CUDA device, by UUID."""
    # CUDA_VISIBLE_DEVICES renumbers devices for CUDA but not for NVML.
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
