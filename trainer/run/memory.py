"""How much memory a run took, and what to say when there was not enough."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.errors import OutOfMemory

_KIB = 1024
"""Linux counts the resident set in KiB."""

_CPU_ALLOCATOR = "DefaultCPUAllocator"
"""In the plain RuntimeError that torch raises where the host's memory does not suffice."""


@contextmanager
def memory_needed(device: torch.device | str) -> Iterator[None]:
    """Turn what torch, numpy and Python raise for want of memory into one error.

    Raises:
        OutOfMemory: with the numbers, and what to lower.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(_out_of_memory(torch.device(device), str(error))) from error
    except MemoryError as error:
        raise OutOfMemory(_out_of_memory(torch.device("cpu"), str(error))) from error
    except RuntimeError as error:
        if _CPU_ALLOCATOR not in str(error):
            raise
        reason = str(error).partition(_CPU_ALLOCATOR)[2].strip(": ")
        raise OutOfMemory(_out_of_memory(torch.device("cpu"), reason)) from error


def peak_bytes(device: torch.device) -> int:
    """Most bytes torch had allocated on a GPU; on a CPU, the process's largest resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _out_of_memory(device: torch.device, reason: str) -> str:
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
