"""Softmax cross-entropy of whole rows, with the gradient written over the logits.

A row of logits fits in the L2 cache, so that reading it twice costs one trip to memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 8192
"""Many warps a row, so that the rows in work at once fit in the L2 cache until they are done."""


@triton.jit
def _cross_entropy_rows(
    logits_ptr,
    stride,
    targets_ptr,
    weights_ptr,
    losses_ptr,
    vocabulary,
    padded,
    WITH_GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits = logits_ptr + row * stride
    target = tl.load(targets_ptr + row)
    columns = tl.arange(0, BLOCK)
    # Maxima and sums run lane by lane, so that warps meet once a row and not once a block.
    top = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        column = start + columns
        x = tl.load(logits + column, mask=column < vocabulary, other=-float("inf")).to(tl.float32)
        new_top = tl.maximum(top, x)
        # A lane that has seen nothing but -inf would subtract it from itself.
        reference = tl.where(new_top == -float("inf"), 0.0, new_top)
        total = total * tl.exp(top - reference) + tl.exp(x - reference)
        top = new_top
    row_top = tl.max(top, 0)
    row_total = tl.sum(total * tl.exp(top - row_top), 0)
    weight = tl.load(weights_ptr + row)
    at_target = tl.load(logits + target).to(tl.float32)
    # Neither sum nor gradient ever sees what all logits have in common, which would round it away.
    loss = (row_top - at_target) + tl.log(row_total)
    # Chosen and not multiplied: a row that does not count may have overflowed.
    tl.store(losses_ptr + row, tl.where(weight == 0, 0.0, loss * weight))
    if WITH_GRADIENT:
        share = 1 / row_total
        tl.debug_barrier()
        for start in range(0, padded, BLOCK):
            column = start + columns
            x = tl.load(logits + column, mask=column < vocabulary, other=-float("inf"))
            probability = tl.exp(x.to(tl.float32) - row_top) * share
            gradient = (probability - tl.where(column == target, 1.0, 0.0)) * weight
            tl.store(
                logits + column,
                tl.where(weight == 0, 0.0, gradient).to(logits_ptr.dtype.element_ty),
                mask=column < padded,
            )


def cross_entropy_rows(
    logits: Tensor, targets: Tensor, row_weights: Tensor, vocabulary: int, *, with_gradient: bool
) -> Tensor:
    """Weighted losses, float32 ``[N]`` in nats; optionally turns `logits` into their gradient.

    Args:
        logits: ``[N, padded]`` on CUDA, float32 or bfloat16, contiguous rows. Columns from
            `vocabulary` on are padding: outside the softmax, with gradient zero.
        targets: int64 ``[N]``, below `vocabulary`.
        row_weights: float32 ``[N]``; a row's loss and gradient are multiplied by it, and are zero
            where it is zero.
        vocabulary: columns that count.
        with_gradient: overwrite `logits` with the gradient of the summed losses.
    """
    rows, padded = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    with torch.cuda.device(logits.device):
        _cross_entropy_rows[(rows,)](
            logits,
            logits.stride(0),
            targets,
            row_weights,
            losses,
            vocabulary,
            padded,
            WITH_GRADIENT=with_gradient,
            BLOCK=_BLOCK,
            num_warps=16,
        )
    return losses
