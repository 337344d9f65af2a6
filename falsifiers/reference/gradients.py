"""Gradients of the float64 loss by automatic differentiation, and their global norm."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .loss import mean_loss
from .model import Configuration, Parameters


def loss_and_gradients(
    parameters: Parameters, config: Configuration, tokens: Tensor, mask: Tensor | None = None
) -> tuple[float, dict[str, Tensor]]:
    """`mean_loss` of a batch and its float64 gradient for every parameter, by name.

    A tied embedding has one gradient: that of its use as embedding plus that as head.

    Raises:
        OracleInputError: as `mean_loss`.
    """
    leaves = {
        name: value.detach().to(torch.float64).requires_grad_()
        for name, value in parameters.items()
    }
    with torch.enable_grad():
        loss = mean_loss(leaves, config, tokens, mask)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return loss.item(), dict(zip(leaves, gradients, strict=True))


def global_norm(gradients: Mapping[str, Tensor]) -> float:
    """L2 norm of all gradients as if they were one vector, float64."""
    return math.sqrt(sum(g.to(torch.float64).square().sum().item() for g in gradients.values()))
