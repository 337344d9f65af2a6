"""Rotary position embedding (Su et al. 2021), half-split pairs as in Llama and Hugging Face."""

from __future__ import annotations

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
        length = q.shape[-2]
        if length > self.cos.shape[0]:
            raise ConfigurationError(
                f"sequence length {length} > max_position_embeddings {self.cos.shape[0]}"
            )
        cos, sin = self.cos[:length], self.sin[:length]
        return rotate(q, cos, sin), rotate(k, cos, sin)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x [..., T, D]`` by tables ``[T, D/2]``, in float32, rounded once to its dtype."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
