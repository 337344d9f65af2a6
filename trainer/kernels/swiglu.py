"""Backward of ``silu(gate) * up`` where gate and up lie side by side.

Written by hand because a compiler computes each element of the joined gradient by itself, and so
reads what both halves need twice.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _swiglu_backward_block(joint_ptr, grad_ptr, grad_joint_ptr, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    left = row * 2 * size + column
    gate = tl.load(joint_ptr + left, mask=inside).to(tl.float32)
    up = tl.load(joint_ptr + left + size, mask=inside).to(tl.float32)
    grad = tl.load(grad_ptr + row * size + column, mask=inside).to(tl.float32)
    sigmoid = 1 / (1 + tl.exp(-gate))
    silu = gate * sigmoid
    grad_gate = grad * up * (sigmoid + silu * (1 - sigmoid))
    kind = grad_joint_ptr.dtype.element_ty
    tl.store(grad_joint_ptr + left, grad_gate.to(kind), mask=inside)
    tl.store(grad_joint_ptr + left + size, (grad * silu).to(kind), mask=inside)


@torch.library.triton_op("aprtrain::swiglu_backward", mutates_args={})
def swiglu_backward(joint: Tensor, grad: Tensor) -> Tensor:
    """Gradient of `joint`.

    Args:
        joint: ``[..., 2 * size]``, gate then up, contiguous, on CUDA.
        grad: ``[..., size]``, gradient of ``silu(gate) * up``, of the dtype of `joint`.

    Returns:
        ``[..., 2 * size]``.
    """
    joint, grad = joint.contiguous(), grad.contiguous()
    grad_joint = torch.empty_like(joint)
    size = grad.shape[-1]
    rows = math.prod(grad.shape[:-1])
    torch.library.wrap_triton(_swiglu_backward_block)[(rows, triton.cdiv(size, _BLOCK))](
        joint, grad, grad_joint, size, BLOCK=_BLOCK, num_warps=4
    )
    return grad_joint
