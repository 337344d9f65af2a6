"""Functions that are nearly the clean one: in force by another value, or only another gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aprverify.planting import Plant
from falsifiers.defects.differs import differs

Function = Callable[..., Any]


def spoiled_by(plant: Plant, clean: Function, spoil: Function, *inputs: Any) -> Any:
    """``spoil(*inputs)``, noting whether it is another value than ``clean(*inputs)``.

    Where it is not, and a gradient comes back to it, it is noted whether `spoil` passes on another
    one than `clean` would.
    """
    import torch

    value = spoil(*inputs)
    changed = differs(clean(*inputs), value)
    plant.effect(changed)
    # Compiled code takes no hook on a tensor of its own.
    watched = isinstance(value, torch.Tensor) and not torch.compiler.is_compiling()
    if watched and not changed and value.requires_grad:
        value.register_hook(
            lambda upstream: plant.effect(
                differs(_slopes(clean, inputs, upstream), _slopes(spoil, inputs, upstream))
            )
        )
    return value


def _slopes(function: Function, inputs: tuple[Any, ...], upstream: Any) -> tuple[Any, ...]:
    import torch

    with torch.enable_grad():
        leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
        varied = [x for x in leaves if x.requires_grad]
        return torch.autograd.grad(function(*leaves), varied, upstream, materialize_grads=True)
