"""One AdamW step in float64 (Loshchilov & Hutter 2019), and clipping by the global norm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import OracleInputError
from .gradients import global_norm


@dataclass(frozen=True)
class AdamWSettings:
    """Hyperparameters of AdamW. They come from a contract: none has a default here.

    Attributes:
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment, outside the root.
        weight_decay: decoupled, times the learning rate, on matrices only (two axes or more).
    """

    beta1: float
    beta2: float
    eps: float
    weight_decay: float


@dataclass(frozen=True)
class AdamWState:
    """Steps done, and the moments by parameter name, float64, shaped as the parameter."""

    step: int
    exp_avg: Mapping[str, Tensor]
    exp_avg_sq: Mapping[str, Tensor]


def initial_state(parameters: Mapping[str, Tensor]) -> AdamWState:
    """The state before the first step: both moments zero."""
    zeros = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in parameters.items()}
    return AdamWState(0, zeros, zeros)


def step(
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    state: AdamWState,
    settings: AdamWSettings,
    lr: float,
) -> tuple[dict[str, Tensor], AdamWState]:
    """Parameters (float64) and state after one step. Nothing is changed in place.

    Raises:
        OracleInputError: parameters, gradients and moments do not go by the same names.
    """
    if not (parameters.keys() == gradients.keys() == state.exp_avg.keys()):
        differing = sorted(
            (parameters.keys() ^ gradients.keys()) | (parameters.keys() ^ state.exp_avg.keys())
        )
        raise OracleInputError(
            f"parameters, gradients and moments differ in {differing}; pass the same names"
        )
    count = state.step + 1
    new_parameters, first, second = {}, {}, {}
    for name, parameter in parameters.items():
        gradient = gradients[name].to(torch.float64)
        first[name] = settings.beta1 * state.exp_avg[name] + (1 - settings.beta1) * gradient
        second[name] = (
            settings.beta2 * state.exp_avg_sq[name] + (1 - settings.beta2) * gradient * gradient
        )
        first_unbiased = first[name] / (1 - settings.beta1**count)
        second_unbiased = second[name] / (1 - settings.beta2**count)
        decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
        value = parameter.detach().to(torch.float64)
        update = first_unbiased / (second_unbiased.sqrt() + settings.eps) + decay * value
        new_parameters[name] = value - lr * update
    return new_parameters, AdamWState(count, first, second)


def clip_by_global_norm(
    gradients: Mapping[str, Tensor], max_norm: float
) -> tuple[dict[str, Tensor], float]:
    """Gradients scaled to a global L2 norm of at most `max_norm`, and their norm before.

    The coefficient is exactly ``min(1, max_norm / norm)`` (Pascanu et al. 2013); torch adds 1e-6
    to the norm, which shortens a clipped gradient by that much over the norm. A non-finite norm
    has no coefficient.

    Raises:
        OracleInputError: the norm is NaN or infinite.
    """
    norm = global_norm(gradients)
    if not math.isfinite(norm):
        raise OracleInputError(f"the global gradient norm is {norm}; it cannot be clipped")
    scale = min(1.0, max_norm / norm) if norm > 0 else 1.0
    return {name: g.to(torch.float64) * scale for name, g in gradients.items()}, norm
