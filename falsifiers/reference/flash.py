"""The backward pass of memory-efficient attention, written out in a training dtype: a yardstick.

FlashAttention (Dao et al. 2022, algorithm 4) does not keep the probabilities. It takes the row sums
of dP ∘ P from the *rounded* output instead, delta = rowsum(dO ∘ O). In exact arithmetic they are
the same; in bfloat16 the rows of dS then no longer sum to zero, and what they sum to is multiplied
by the mean of k. Where k and v have large biases, as in Qwen2 (v makes the output large against
its spread, k the mean), the gradient of q can be mostly rounding error, by nature of the algorithm
and not by fault of an implementation. Softmax in plain eager torch does not show this, so it alone
is no fair yardstick for such a kernel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def flash_backward(q: Tensor, k: Tensor, v: Tensor, grad_out: Tensor) -> dict[str, Tensor]:
    """Gradients of q, k and v by name, rounded to `q`'s dtype wherever a kernel must round.

    Args:
        q: ``[B, N, T, D]`` in the training dtype.
        k: ``[B, K, T, D]``.
        v: ``[B, K, T, D]``.
        grad_out: ``[B, N, T, D]``.
    """
    group = q.shape[1] // k.shape[1]
    scale = 1.0 / math.sqrt(q.shape[-1])
    accumulator = torch.promote_types(q.dtype, torch.float32)

    def rounded(x: Tensor) -> Tensor:
        return x.to(q.dtype).to(accumulator)

    queries, gradient = q.to(accumulator), grad_out.to(accumulator)
    keys = k.repeat_interleave(group, dim=1).to(accumulator)
    values = v.repeat_interleave(group, dim=1).to(accumulator)
    length = q.shape[-2]
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(diagonal=1)
    scores = (queries @ keys.transpose(-1, -2) * scale).masked_fill(future, -math.inf)
    probabilities = scores.softmax(-1)
    out = rounded(rounded(probabilities) @ values)
    delta = (gradient * out).sum(-1, keepdim=True)
    grad_scores = rounded(probabilities * (gradient @ values.transpose(-1, -2) - delta))
    grad_q = grad_scores @ keys * scale
    grad_k = grad_scores.transpose(-1, -2) @ queries * scale
    grad_v = rounded(probabilities).transpose(-1, -2) @ gradient
    return {
        "q": grad_q.to(q.dtype),
        "k": _sum_groups(rounded(grad_k), group).to(q.dtype),
        "v": _sum_groups(rounded(grad_v), group).to(q.dtype),
    }


def _sum_groups(x: Tensor, group: int) -> Tensor:
    """Sum the query heads that share a key-value head: ``[B, N, T, D] -> [B, K, T, D]``."""
    batch, heads, length, size = x.shape
    return x.reshape(batch, heads // group, group, length, size).sum(2)
