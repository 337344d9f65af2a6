"""The bundled trainer's operators, called by themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from falsifiers.adapters.bundled.conversions import refusals
from falsifiers.subject import EAGER, Execution, NotSupported
from trainer import loss, precision
from trainer.model import attention, flex_attention, mlp, rmsnorm, rope


class BundledOperators:
    """Eager ones, or those that compiled layers call on CUDA.

    On other devices compiled layers call the eager ones, so compiled operators take CUDA tensors
    only.
    """

    def __init__(self, execution: Execution = EAGER) -> None:
        self._how = execution

    def rmsnorm(self, x: Tensor, weight: Tensor, *, eps: float) -> Tensor:
        """See the protocol. Compiled layers differ by what the compiler fuses around it."""
        norm = rmsnorm.RMSNorm(x.shape[-1], eps)
        del norm.weight  # a parameter would cut `weight` off from its gradient
        norm.weight = weight  # type: ignore[assignment]
        return norm(x)  # type: ignore[no-any-return]

    def rope(self, q: Tensor, k: Tensor, *, theta: float) -> tuple[Tensor, Tensor]:
        """See the protocol."""
        head_dim, length = q.shape[-1], q.shape[-2]
        with refusals():
            embedding = rope.RotaryEmbedding(head_dim, theta, length).to(q.device)
            if not self._how.compiled:
                rotated: tuple[Tensor, Tensor] = embedding(q, k)
                return rotated
            _require_cuda(q)
            parts = [x.transpose(1, 2).flatten(2) for x in (q, k, torch.zeros_like(k))]
            size = parts[1].shape[-1]
            return rope.split_and_rotate(torch.cat(parts, -1), head_dim, size, embedding)[:2]

    def swiglu(self, gate: Tensor, up: Tensor) -> Tensor:
        """See the protocol."""
        if not self._how.compiled:
            return mlp.Gate()(gate, up)  # type: ignore[no-any-return]
        _require_cuda(gate)
        joint = torch.cat((gate, up), -1)
        return mlp._JointGate.apply(joint)  # type: ignore[no-any-return, no-untyped-call]

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See the protocol."""
        with precision.ieee_float32():
            if not (self._how.compiled and self._how.deterministic):
                return attention.ScaledDotProductAttention()(q, k, v)  # type: ignore[no-any-return]
            _require_cuda(q)
            fixed_order = flex_attention.FlexCausalAttention()
            fixed_order.prepare(q.shape[-2], q.device)
            return torch.compile(fixed_order, dynamic=False)(q, k, v)  # type: ignore[no-any-return]

    def linear_cross_entropy(
        self, hidden: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor | None = None
    ) -> Tensor:
        """See the protocol."""
        with precision.ieee_float32():
            return loss.linear_cross_entropy(hidden, weight, targets, row_weights)


def _require_cuda(tensor: Tensor) -> None:
    if not tensor.is_cuda:
        raise NotSupported("compiled layers call other operators than eager ones on CUDA only")
