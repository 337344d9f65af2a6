"""Gated feed-forward network, SwiGLU (Shazeer 2020)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config import ModelConfig
from trainer.model.linear import Linear


class Gate(nn.Module):
    """``silu(gate) * up``, elementwise."""

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        """Two tensors of one shape -> that shape."""
        return F.silu(gate) * up


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.gate = Gate()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C] -> [B, T, C]``."""
        return self.down_proj(self.gate(self.gate_proj(x), self.up_proj(x)))  # type: ignore[no-any-return]
