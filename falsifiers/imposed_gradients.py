"""Gradients that a falsifier chooses, in the place of those that backward finds.

What an optimizer does with a gradient can then be held against a closed form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from falsifiers.inputs import random_batch
from falsifiers.subject import Batch

if TYPE_CHECKING:
    from falsifiers.subject import Configuration, GradientHook, Instance


class ImposedGradients:
    """Replaces every gradient of an instance by the one imposed, one mapping a backward pass."""

    def __init__(self, instance: Instance) -> None:
        self._passes: dict[str, list[Tensor]] = {}
        for name in instance.parameters():
            instance.on_gradient(name, self._hook(name))

    def impose(self, *passes: Mapping[str, Tensor]) -> None:
        """What the backward passes that come now find; the last one also what any later find."""
        self._passes = {name: [values[name] for values in passes] for name in passes[0]}

    def _hook(self, name: str) -> GradientHook:
        def replace(found: Tensor) -> Tensor:
            waiting = self._passes[name]
            value = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            return value.to(found.device, torch.float32).clone()

        return replace


def any_batch(configuration: Configuration, seed: int) -> Batch:
    """A small batch to run backward over, where what it finds does not matter."""
    return random_batch(configuration, 1, 4, seed)


def drawn(like: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """float32 standard normal draws on the CPU, by name and shape of `like`."""
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=generator) for n, p in sorted(like.items())}


def of_norm(values: Mapping[str, Tensor], norm: float) -> dict[str, Tensor]:
    """`values` scaled to a global L2 norm of `norm`, up to the rounding of float32."""
    total = torch.stack([v.double().square().sum() for v in values.values()]).sum().sqrt()
    return {name: (v.double() * (norm / total)).float() for name, v in values.items()}
