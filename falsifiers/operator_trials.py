"""One operator on made tensors: its outputs, its gradients, and how wrong each element may be.

Errors are taken element by element and divided by a *scale*: the size of what the element is summed
from. A relative L2 error would let one wrong column of a thousand pass; a plain relative error
would blame honest rounding wherever terms cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from falsifiers.reference.operators import recompute, recompute_backward

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """What an operator returned.

    Attributes:
        outputs: by the names that the caller gave.
        gradients: by argument; where none came back, full of NaN, which no claim accepts.
    """

    outputs: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


def tried(
    operator: Callable[..., Tensor | tuple[Tensor, ...]],
    arguments: Mapping[str, Tensor],
    names: Sequence[str] = ("out",),
    *,
    seed: int = 0,
    upstream: Mapping[str, Tensor] | None = None,
) -> tuple[Trial, Mapping[str, Tensor]]:
    """Run `operator` forward and backward.

    Args:
        operator: takes `arguments` by position.
        arguments: its tensors; gradients are taken with respect to each.
        names: of what it returns.
        seed: of the upstream gradients, standard normal in each output's dtype.
        upstream: those gradients, where the caller has them already.

    Returns:
        The trial, and the upstream gradients by output.
    """
    leaves = {name: x.detach().clone().requires_grad_() for name, x in arguments.items()}
    result = operator(*leaves.values())
    outputs = dict(zip(names, result if isinstance(result, tuple) else (result,), strict=True))
    if upstream is None:
        upstream = {
            name: gaussian(tuple(y.shape), seed + i, str(y.device), y.dtype)
            for i, (name, y) in enumerate(outputs.items())
        }
    linked = [name for name, y in outputs.items() if y.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if linked:
        found = torch.autograd.grad(
            [outputs[name] for name in linked],
            list(leaves.values()),
            [upstream[name] for name in linked],
            allow_unused=True,
        )
    gradients = {
        name: torch.full_like(x, math.nan) if gradient is None else gradient
        for (name, x), gradient in zip(leaves.items(), found, strict=True)
    }
    return Trial({name: y.detach() for name, y in outputs.items()}, gradients), upstream


def exactly(
    kind: str,
    inputs: Mapping[str, Tensor],
    upstream: Mapping[str, Tensor],
    *,
    parameters: Mapping[str, Tensor] | None = None,
    settings: Mapping[str, float] | None = None,
) -> Trial:
    """The float64 oracle's trial on the same tensors."""
    arguments = (kind, inputs, parameters or {}, settings or {})
    outputs = recompute(*arguments, torch.float64)
    of_inputs, of_parameters = recompute_backward(*arguments, upstream, torch.float64)
    return Trial(outputs, {**of_inputs, **of_parameters})


def torch_dtype(name: str) -> torch.dtype:
    """The dtype that a case names."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def gaussian(shape: Shape, seed: int, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers, the same ones on every device."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return numbers.to(device, dtype)


def element_error(value: Tensor, exact: Tensor, scale: Tensor) -> float:
    """The largest ``|value − exact| / scale``; 0 of nothing.

    Where the scale is zero the value must be exact. Another shape is infinitely wrong, NaN is NaN.
    """
    if value.shape != exact.shape:
        return math.inf
    if value.numel() == 0:
        return 0.0
    difference = (value.detach().double() - exact.detach().double()).abs()
    ratio = torch.where(difference == 0.0, 0.0, difference / scale)
    return float(ratio.max())


@dataclass
class Errors:
    """The largest error of each kind over many trials, and where the largest was.

    Attributes:
        largest: by kind, for the measures.
        where: what the caller said of the trial with the largest error by kind.
        dtypes: of every output that was judged.
        trials: how many outputs were judged.
    """

    largest: dict[str, float] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    dtypes: set[str] = field(default_factory=set)
    trials: int = 0

    def note(self, kind: str, error: float, where: str) -> None:
        """Keep `error` if it is the largest of its kind; NaN is larger than any."""
        before = self.largest.get(kind, -1.0)
        if not math.isnan(before) and (math.isnan(error) or error > before):
            self.largest[kind], self.where[kind] = error, where

    def saw(self, outputs: Mapping[str, Tensor]) -> None:
        """Count outputs and their dtypes."""
        self.trials += len(outputs)
        self.dtypes |= {str(y.dtype).removeprefix("torch.") for y in outputs.values()}

    @property
    def output_dtypes(self) -> str:
        """The distinct dtypes, sorted and joined by commas."""
        return ",".join(sorted(self.dtypes))

    def worst(self) -> str:
        """Where each kind erred most."""
        return "; ".join(f"{kind}: {self.where[kind]}" for kind in sorted(self.where))
