"""A batch of token sequences, and the one place where targets are made from tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """Sequences of one length.

    Attributes:
        tokens: int64 ``[batch, length + 1]``; position t predicts token t + 1.
        target_mask: bool ``[batch, length]``, True where a target counts; None means everywhere.
    """

    tokens: Tensor
    target_mask: Tensor | None = None

    def target_count(self) -> int:
        """How many targets count towards the loss."""
        if self.target_mask is None:
            return self.tokens.shape[0] * (self.tokens.shape[1] - 1)
        return int(self.target_mask.sum())


def shift(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and next-token targets, each ``[batch, length]``, of ``[batch, length + 1]``."""
    return tokens[:, :-1], tokens[:, 1:]
