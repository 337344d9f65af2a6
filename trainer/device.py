"""Which device a ``--device`` value selects.

Asks the CUDA driver itself, by ctypes, and never imports torch: a wrong or missing device is then
reported in milliseconds, before a run has left anything behind. There is no fallback to the CPU;
only ``auto`` may choose it.
"""

from __future__ import annotations

import ctypes
import re

from trainer.errors import DeviceUnavailable, UsageError

GRAMMAR = r"(cpu|cuda(:[0-9]|:1[0-5])?|auto)"


def resolve_device(spec: str) -> str:
    """The canonical name, ``cpu`` or ``cuda:N``, of the device that `spec` asks for.

    Raises:
        UsageError: `spec` is outside the grammar.
        DeviceUnavailable: a CUDA device was asked for and the driver does not show it.
    """
    if re.fullmatch(GRAMMAR, spec) is None:
        raise UsageError(f"device {spec!r} is malformed; use cpu, cuda, cuda:0 … cuda:15 or auto")
    if spec == "cpu":
        return "cpu"
    count = visible_cuda_devices()
    if spec == "auto":
        return "cuda:0" if count else "cpu"
    index = int(spec.partition(":")[2] or 0)
    if index >= count:
        raise DeviceUnavailable(
            f"device {spec!r} was asked for, but the CUDA driver shows {count} device(s); "
            "check the driver and CUDA_VISIBLE_DEVICES, or pass --device cpu"
        )
    return f"cuda:{index}"


def visible_cuda_devices() -> int:
    """How many CUDA devices the driver shows to this process, 0 if there is no working driver.

    The driver itself applies CUDA_VISIBLE_DEVICES.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
