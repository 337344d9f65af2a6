"""Which torch this is and what it can see, for a user who wonders why there is no GPU."""

from __future__ import annotations

from typing import Any

import torch

from trainer.device import visible_cuda_devices


def device_report() -> dict[str, Any]:
    """Versions and devices, ready for JSON.

    ``state`` is TORCH_WITHOUT_CUDA, CUDA_BUILD_NO_GPU or GPU_VISIBLE.
    """
    count = torch.cuda.device_count() if torch.version.cuda is not None else 0
    return {
        "state": _state(torch.version.cuda, count),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "driver_devices": visible_cuda_devices(),
        "devices": [_describe(index) for index in range(count)],
    }


def _state(cuda_version: str | None, count: int) -> str:
    if cuda_version is None:
        return "TORCH_WITHOUT_CUDA"
    return "GPU_VISIBLE" if count else "CUDA_BUILD_NO_GPU"


def _describe(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {
        "device": f"cuda:{index}",
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
    }
