"""How much memory a run took, and what to say when there was not enough."""

from __future__ import annotations

import resource

import torch

_KIB = 1024
"""Linux counts the resident set in KiB."""


def peak_bytes(device: torch.device) -> int:
    """Most bytes torch had allocated on a GPU; on a CPU, the process's largest resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def out_of_memory(device: torch.device | str, reason: str) -> str:
    """What the user should know and do after `torch.OutOfMemoryError`."""
    device = torch.device(device)
    numbers = reason
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        numbers = (
            f"{torch.cuda.memory_allocated(device):,} bytes allocated, "
            f"{torch.cuda.memory_reserved(device):,} reserved of {total:,}"
        )
    return (
        f"{device} has no memory left ({numbers}); lower --batch-size and raise --accumulation by "
        "the same factor, which keeps the tokens of a step, or shorten --seq-length"
    )
