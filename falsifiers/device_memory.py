"""GPU memory between entries: workers share a card, and what one keeps the others lack."""

from __future__ import annotations

import gc
import sys

KEPT_BYTES = 4 * 2**30
"""What a worker may keep. Below this, collecting costs more than the memory is worth to others."""


def give_back() -> None:
    """Return unused GPU memory to the driver, where this process holds more than `KEPT_BYTES`.

    Models are in reference cycles, and Python does not know that gigabytes hang from a few of its
    objects; PyTorch keeps what they leave for this process alone.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    if torch.cuda.memory_reserved() > KEPT_BYTES:
        gc.collect()
        torch.cuda.empty_cache()
