"""The global gradient norm, and clipping by it (Pascanu et al. 2013)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MAX_NORM = 1.0


def global_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm over the gradients of all `parameters` together, a float64 scalar on their device.

    Summed in float64, because torch's float32 norm on a CPU is 0.4 % low at 50 million elements.
    """
    norms = torch._foreach_norm(_gradients(parameters), 2, torch.float64)
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


def clip(parameters: Iterable[nn.Parameter], norm: Tensor, max_norm: float = MAX_NORM) -> None:
    """Scale all gradients in place by min(1, max_norm / norm), `norm` being their global norm."""
    coefficient = clip_coefficient(norm, max_norm).float()
    torch._foreach_mul_(_gradients(parameters), coefficient)


def clip_coefficient(norm: Tensor, max_norm: float) -> Tensor:
    """What gradients are multiplied by: 1 up to `max_norm`, then max_norm / norm."""
    return (max_norm / norm).clamp(max=1.0)


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
