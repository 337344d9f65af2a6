"""Token embedding, and where activations take on the compute dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Embedding(nn.Module):
    """Rows of a float32 master table ``weight [vocab, C]``, cast to `compute_dtype`."""

    def __init__(self, vocab_size: int, hidden_size: int, compute_dtype: torch.dtype) -> None:
        super().__init__()
        self.compute_dtype = compute_dtype
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size, dtype=torch.float32))

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 ``[B, T]`` -> ``[B, T, C]``."""
        return F.embedding(tokens, self.weight).to(self.compute_dtype)
