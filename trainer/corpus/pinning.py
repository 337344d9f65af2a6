"""Batches in page-locked memory, from which a GPU copies without holding up the host."""

from __future__ import annotations

import torch

from trainer.batch import TokenBatch


def pinned(batch: TokenBatch) -> TokenBatch:
    """`batch` in pinned memory if this process uses CUDA, else as it is.

    Call it from the thread that launches the steps: allocating pinned memory in another one breaks
    a CUDA graph that is being captured.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return batch
    mask = batch.target_mask
    return TokenBatch(batch.tokens.pin_memory(), None if mask is None else mask.pin_memory())
