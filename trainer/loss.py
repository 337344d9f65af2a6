"""Cross-entropy of a linear head, without ever holding all logits.

At 16 k tokens and 50 k words the logits alone are 3 GB in float32. Here rows are taken in chunks,
and where gradients are wanted they are made in the same pass, while a chunk's logits are at hand;
the logits then live for one chunk, and are multiplied out once.

A row's loss is (largest logit - target's logit) + log sum exp(logits - largest): what all logits
have in common is subtracted before anything is rounded to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from trainer.model.linear import matmul_float32

CHUNK_LOGITS = 2**30
"""Most logits held at once: 2 GiB in bfloat16, 21365 rows of a 50257-word vocabulary. More chunks
cost one pass over the head's gradient each."""

COLUMNS = 64
"""On CUDA the head is padded to a multiple of this many rows: odd sizes halve the speed."""


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor
    ) -> Tensor:
        vocabulary = weight.shape[0]
        head = _padded(weight.to(hidden.dtype))
        losses = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        want_hidden, want_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if want_hidden else None
        grad_weight: Tensor | None = None
        for rows in _chunks(hidden.shape[0], vocabulary):
            logits = hidden[rows] @ head.T
            losses[rows] = _row_losses(
                logits,
                targets[rows],
                row_weights[rows],
                vocabulary,
                with_gradient=want_hidden or want_weight,
            )
            if grad_hidden is not None:
                torch.mm(logits, head, out=grad_hidden[rows])
            if want_weight:
                share = matmul_float32(logits.T, hidden[rows])
                grad_weight = share if grad_weight is None else grad_weight.add_(share)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.vocabulary = vocabulary
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sum: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad_sum.to(grad_hidden.dtype)
        if grad_weight is not None:
            # The list form multiplies by a scalar on the device at full bandwidth.
            grad_weight = torch._foreach_mul([grad_weight[: ctx.vocabulary]], grad_sum)[0]
        return grad_hidden, grad_weight, None, None


def _padded(head: Tensor) -> Tensor:
    missing = -head.shape[0] % COLUMNS if head.is_cuda else 0
    return F.pad(head, (0, 0, 0, missing)) if missing else head


def _row_losses(
    logits: Tensor, targets: Tensor, row_weights: Tensor, vocabulary: int, *, with_gradient: bool
) -> Tensor:
    """Weighted losses, float32 ``[N]``; optionally turns `logits` into their gradient, in place.

    Rows of weight zero have a loss and a gradient of zero, also where their logits overflow.
    """
    if logits.is_cuda:
        from trainer.kernels.cross_entropy import cross_entropy_rows

        return cross_entropy_rows(
            logits, targets, row_weights, vocabulary, with_gradient=with_gradient
        )
    wide = logits.float()
    top = wide.amax(-1)
    above_target = top - wide.gather(-1, targets[:, None]).squeeze(-1)
    exponentials = (wide - top[:, None]).exp_()
    totals = exponentials.sum(-1)
    counted = row_weights != 0
    if with_gradient:
        gradient = exponentials.div_(totals[:, None])
        ones = torch.ones_like(targets, dtype=torch.float32)
        gradient.scatter_add_(-1, targets[:, None], -ones[:, None])
        weighted = gradient.mul_(row_weights[:, None])
        logits.copy_(weighted.masked_fill_(~counted[:, None], 0.0))
    losses = (above_target + totals.log()) * row_weights
    return losses.masked_fill_(~counted, 0.0)


def _chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, CHUNK_LOGITS // vocabulary)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor | None = None
) -> Tensor:
    """Sum over rows of ``row_weight * -log softmax(hidden @ weight.T)[target]``, in nats.

    Logits and their gradients are rounded to the dtype of `hidden`; softmax, sum and the head's
    gradient are float32. Differentiable once, in `hidden` and `weight`.

    Args:
        hidden: ``[N, C]``, float32 or bfloat16.
        weight: the head, float32 ``[vocab, C]``.
        targets: int64 ``[N]``, each in ``[0, vocab)``.
        row_weights: ``[N]``, cast to float32; a bool mask counts 1 and 0. None is all ones. Rows
            of weight zero contribute exactly nothing, whatever their logits.

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
