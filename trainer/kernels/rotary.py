"""Backward of splitting a joint projection into queries, keys and values, and rotating two of them.

One pass gathers the three gradients into the joint one, rotating back on the way.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _gather_part(
    part_ptr,
    batch_stride,
    head_stride,
    position_stride,
    first_ptr,
    cos,
    sin,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    ROTATED: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    batch,
    position,
):
    head = tl.arange(0, BLOCK_HEADS)[:, None].to(tl.int64)
    lane = tl.arange(0, BLOCK_HALF)[None, :]
    inside = (head < HEADS) & (lane < HALF)
    source = part_ptr + batch * batch_stride + position * position_stride + head * head_stride
    first = tl.load(source + lane, mask=inside).to(tl.float32)
    second = tl.load(source + lane + HALF, mask=inside).to(tl.float32)
    if ROTATED:
        first, second = first * cos + second * sin, second * cos - first * sin
    kind = first_ptr.dtype.element_ty
    target = first_ptr + head * 2 * HALF
    tl.store(target + lane, first.to(kind), mask=inside)
    tl.store(target + lane + HALF, second.to(kind), mask=inside)


@triton.jit
def _gather_token(
    q_ptr,
    q_batch,
    q_head,
    q_position,
    k_ptr,
    k_batch,
    k_head,
    k_position,
    v_ptr,
    v_batch,
    v_head,
    v_position,
    cos_ptr,
    sin_ptr,
    joint_ptr,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    batch, position = token // length, token % length
    lane = tl.arange(0, BLOCK_HALF)[None, :]
    cos = tl.load(cos_ptr + position * HALF + lane, mask=lane < HALF)
    sin = tl.load(sin_ptr + position * HALF + lane, mask=lane < HALF)
    q_start = joint_ptr + token * (H + 2 * K) * 2 * HALF
    k_start = q_start + H * 2 * HALF
    v_start = k_start + K * 2 * HALF
    _gather_part(
        q_ptr, q_batch, q_head, q_position, q_start, cos, sin,
        H, HALF, True, BLOCK_H, BLOCK_HALF, batch, position,
    )  # fmt: skip
    _gather_part(
        k_ptr, k_batch, k_head, k_position, k_start, cos, sin,
        K, HALF, True, BLOCK_K, BLOCK_HALF, batch, position,
    )  # fmt: skip
    _gather_part(
        v_ptr, v_batch, v_head, v_position, v_start, cos, sin,
        K, HALF, False, BLOCK_K, BLOCK_HALF, batch, position,
    )  # fmt: skip


@torch.library.triton_op("aprtrain::rotary_backward", mutates_args={})
def rotary_backward(
    grad_q: Tensor, grad_k: Tensor, grad_v: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Gradient of the joint projection.

    Args:
        grad_q: ``[B, H, T, D]`` on CUDA, last dimension contiguous.
        grad_k: ``[B, K, T, D]``.
        grad_v: ``[B, K, T, D]``.
        cos: float32 ``[T, D / 2]``, contiguous.
        sin: float32 ``[T, D / 2]``, contiguous.

    Returns:
        ``[B, T, (H + 2 K) * D]``, queries, keys, values.
    """
    batch, heads, length, head_dim = grad_q.shape
    kv_heads = grad_k.shape[1]
    joint = grad_q.new_empty(batch, length, (heads + 2 * kv_heads) * head_dim)
    torch.library.wrap_triton(_gather_token)[(batch * length,)](
        grad_q,
        *grad_q.stride()[:3],
        grad_k,
        *grad_k.stride()[:3],
        grad_v,
        *grad_v.stride()[:3],
        cos,
        sin,
        joint,
        length,
        H=heads,
        K=kv_heads,
        HALF=head_dim // 2,
        BLOCK_H=triton.next_power_of_2(heads),
        BLOCK_K=triton.next_power_of_2(kv_heads),
        BLOCK_HALF=triton.next_power_of_2(head_dim // 2),
        num_warps=4,
    )
    return joint
