"""Rotary position embedding (Su et al. 2021), half-split pairs as in Llama and Hugging Face."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.errors import ConfigurationError


def rope_tables(head_dim: int, theta: float, max_positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 ``[max_positions, head_dim / 2]``, of position × frequency.

    Computed in float64: at position 4096 a float32 angle is already off by 2e-4 radians.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    positions = torch.arange(max_positions, dtype=torch.float64)
    angles = torch.outer(positions, theta**-exponents)
    return angles.cos().float(), angles.sin().float()


class RotaryEmbedding(nn.Module):
    """Rotates the pairs (i, i + D/2) of queries and keys by an angle proportional to position.

    Layers of one decoder pass the same `tables`, so that a long context stores them once.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        head_dim: int,
        theta: float,
        max_positions: int,
        tables: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.theta = theta
        cos, sin = tables if tables is not None else rope_tables(head_dim, theta, max_positions)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """``q [B, H, T, D], k [B, K, T, D]`` -> the same, rotated; position is the index in T.

        Raises:
            ConfigurationError: T exceeds the positions that the model has.
        """
        cos, sin = self.tables(q.shape[-2])
        return rotate(q, cos, sin), rotate(k, cos, sin)

    def tables(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``[length, D / 2]`` of the first positions. Raises as `forward`."""
        if length > self.cos.shape[0]:
            raise ConfigurationError(
                f"sequence length {length} > max_position_embeddings {self.cos.shape[0]}"
            )
        return self.cos[:length], self.sin[:length]


class _SplitAndRotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, joint: Tensor, cos: Tensor, sin: Tensor, head_dim: int, key_value_size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        sizes = [joint.shape[-1] - 2 * key_value_size, key_value_size, key_value_size]
        # The head counts are stated: of no tokens at all none could be inferred.
        q, k, v = (
            part.view(*joint.shape[:-1], size // head_dim, head_dim).transpose(1, 2)
            for part, size in zip(joint.split_with_sizes(sizes, dim=-1), sizes, strict=True)
        )
        return rotate(q, cos, sin), rotate(k, cos, sin), v.clone()

    @staticmethod
    def backward(
        ctx: Any, grad_q: Tensor, grad_k: Tensor, grad_v: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        from trainer.kernels.rotary import rotary_backward

        cos, sin = ctx.saved_tensors
        return rotary_backward(grad_q, grad_k, grad_v, cos, sin), None, None, None, None


def split_and_rotate(
    joint: Tensor, head_dim: int, key_value_size: int, rope: RotaryEmbedding
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, rotated, and values, from their joint projection on CUDA.

    Args:
        joint: ``[B, T, (H + 2 K) * D]``: queries, keys, values.
        head_dim: D.
        key_value_size: ``K * D``.
        rope: where the tables are.

    Returns:
        ``[B, H, T, D]`` and twice ``[B, K, T, D]``.
    """
    cos, sin = rope.tables(joint.shape[1])
    parts: tuple[Tensor, Tensor, Tensor] = _SplitAndRotate.apply(  # type: ignore[no-untyped-call]
        joint, cos, sin, head_dim, key_value_size
    )
    return parts


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x [B, H, T, D]`` by tables ``[T, D/2]``, in float32, rounded once to its dtype.

    The result lies in memory as ``[B, T, H, D]``, as a projection leaves it, so that attention's
    output needs no transposition either.
    """
    first, second = x.transpose(1, 2).float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(x.dtype).transpose(1, 2)
