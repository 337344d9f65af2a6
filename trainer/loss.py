"""Cross-entropy of a linear head, without ever holding all logits.

At 16 k tokens and 50 k words the logits alone are 3 GB in float32. Here rows are taken in chunks,
the logits of a chunk live only while it is worked on, and backward computes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK_LOGITS = 2**27
"""Most logits held at once: 512 MiB in float32, 2670 rows of a 50257-word vocabulary."""


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor
    ) -> Tensor:
        head = weight.to(hidden.dtype)
        losses = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        normalisers = torch.empty_like(losses)
        for rows in _chunks(hidden.shape[0], weight.shape[0]):
            logits = (hidden[rows] @ head.T).float()
            normalisers[rows] = logits.logsumexp(-1)
            at_target = logits.gather(-1, targets[rows, None]).squeeze(-1)
            losses[rows] = normalisers[rows] - at_target
        ctx.save_for_backward(hidden, weight, targets, row_weights, normalisers)
        return (losses * row_weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sum: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, targets, row_weights, normalisers = ctx.saved_tensors
        head = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight)
        for rows in _chunks(hidden.shape[0], weight.shape[0]):
            logits = (hidden[rows] @ head.T).float()
            grad_logits = (logits - normalisers[rows, None]).exp_()
            at_target = targets[rows, None]
            grad_logits.scatter_add_(
                -1, at_target, -torch.ones_like(at_target, dtype=torch.float32)
            )
            grad_logits *= (row_weights[rows] * grad_sum)[:, None]
            grad_rounded = grad_logits.to(hidden.dtype)
            grad_hidden[rows] = grad_rounded @ head
            grad_weight += grad_rounded.T @ hidden[rows]
        return grad_hidden, grad_weight, None, None


def _chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, CHUNK_LOGITS // vocabulary)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor | None = None
) -> Tensor:
    """Sum over rows of ``row_weight * -log softmax(hidden @ weight.T)[target]``, in nats.

    Logits are rounded to the dtype of `hidden`; softmax, sum and the head's accumulated gradient
    are float32. Differentiable once, in `hidden` and `weight`.

    Args:
        hidden: ``[N, C]``, float32 or bfloat16.
        weight: the head, float32 ``[vocab, C]``.
        targets: int64 ``[N]``, each in ``[0, vocab)``.
        row_weights: ``[N]``, cast to float32; a bool mask counts 1 and 0. None is all ones.

    Returns:
        float32 scalar.
    """
    if row_weights is None:
        row_weights = torch.ones(targets.shape, device=targets.device)
    weights = row_weights.float()
    total: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, weights)  # type: ignore[no-untyped-call]
    return total


class LinearCrossEntropy(nn.Module):
    """`linear_cross_entropy` as a module, so that it can be watched like any operator."""

    def forward(
        self, hidden: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor | None = None
    ) -> Tensor:
        """See `linear_cross_entropy`."""
        return linear_cross_entropy(hidden, weight, targets, row_weights)
