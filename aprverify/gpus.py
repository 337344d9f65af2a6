"""Which GPUs this process may use, asked of the driver through NVML and never through torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import pynvml  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Gpu:
    """One GPU. ``CUDA_VISIBLE_DEVICES`` calls it by its index, or by its UUID or a part of that."""

    selector: str
    uuid: str
    name: str
    memory_gib: float
    compute_capability: str


@cache
def visible_gpus() -> tuple[Gpu, ...]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves visible; none where there is no driver."""
    gpus = _all_gpus()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return gpus
    visible = []
    for selector in (part.strip() for part in wanted.split(",")):
        named = [g for g in gpus if selector == g.selector or _is_uuid(selector, g)]
        if len(named) != 1:
            break  # CUDA ignores everything from the first unknown entry on
        visible += named
    return tuple(visible)


def _is_uuid(selector: str, gpu: Gpu) -> bool:
    return selector.startswith("GPU-") and gpu.uuid.startswith(selector)


@cache
def driver_version() -> str | None:
    """The NVIDIA driver's version, or None."""
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _all_gpus() -> tuple[Gpu, ...]:
    try:
        pynvml.nvmlInit()
        return tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30
    name = str(pynvml.nvmlDeviceGetName(handle))
    uuid = str(pynvml.nvmlDeviceGetUUID(handle))
    return Gpu(str(index), uuid, name, round(memory, 1), f"{major}.{minor}")
