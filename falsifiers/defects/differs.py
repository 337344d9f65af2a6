"""Whether a defect changed anything: how planted code compares its output with the clean one."""

from __future__ import annotations

from typing import Any


def differs(before: Any, after: Any) -> bool:
    """True where two outputs are not identical, element for element; NaN differs from all."""
    import torch

    if isinstance(before, torch.Tensor):
        return before.shape != after.shape or not torch.equal(before, after)
    if isinstance(before, (tuple, list)):
        return len(before) != len(after) or any(map(differs, before, after))
    return bool(before != after)
