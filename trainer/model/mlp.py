"""Gated feed-forward network, SwiGLU (Shazeer 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config import ModelConfig
from trainer.model.linear import Linear, joins_projections, project, project_jointly


class Gate(nn.Module):
    """``silu(gate) * up``, elementwise."""

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        """Two tensors of one shape -> that shape."""
        return F.silu(gate) * up


class _JointGate(torch.autograd.Function):
    """`Gate` on ``[..., 2 * size]``, gate then up."""

    @staticmethod
    def forward(ctx: Any, joint: Tensor) -> Tensor:
        ctx.save_for_backward(joint)
        gate, up = joint.chunk(2, dim=-1)
        gated: Tensor = F.silu(gate) * up
        return gated

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        from trainer.kernels.swiglu import swiglu_backward

        (joint,) = ctx.saved_tensors
        grad_joint: Tensor = swiglu_backward(joint, grad)
        return grad_joint


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
        if joins_projections(x):
            joint = project_jointly(x, self.gate_proj, self.up_proj)
            gated: Tensor = _JointGate.apply(joint)  # type: ignore[no-untyped-call]
        else:
            gated = self.gate(*project(x, self.gate_proj, self.up_proj))
        return self.down_proj(gated)  # type: ignore[no-any-return]
