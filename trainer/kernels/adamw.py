"""One AdamW step over many tensors in one launch, clipping included.

torch's fused kernel writes the clipped gradients back, one trip to memory in eight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096


@triton.jit
def _adamw_block(
    blocks_ptr,
    scalars_ptr,
    halted_ptr,
    beta1,
    beta2,
    eps,
    weight_decay,
    BLOCK: tl.constexpr,
):
    if tl.load(halted_ptr) == 0:
        entry = blocks_ptr + tl.program_id(0).to(tl.int64) * 5
        p_ptr = tl.multiple_of(tl.load(entry).to(tl.pointer_type(tl.float32)), 16)
        g_ptr = tl.multiple_of(tl.load(entry + 1).to(tl.pointer_type(tl.float32)), 16)
        m_ptr = tl.multiple_of(tl.load(entry + 2).to(tl.pointer_type(tl.float32)), 16)
        v_ptr = tl.multiple_of(tl.load(entry + 3).to(tl.pointer_type(tl.float32)), 16)
        count = tl.load(entry + 4)
        rate = tl.load(scalars_ptr)
        step_size = tl.load(scalars_ptr + 1)
        root_correction = tl.load(scalars_ptr + 2)
        coefficient = tl.load(scalars_ptr + 3)
        index = tl.arange(0, BLOCK)
        inside = index < count
        p = tl.load(p_ptr + index, mask=inside)
        g = tl.load(g_ptr + index, mask=inside) * coefficient
        m = tl.load(m_ptr + index, mask=inside)
        v = tl.load(v_ptr + index, mask=inside)
        m = m + (g - m) * (1 - beta1)
        v = v * beta2 + g * g * (1 - beta2)
        p = p - p * (rate * weight_decay)
        p = p - step_size * tl.div_rn(m, tl.div_rn(tl.sqrt_rn(v), root_correction) + eps)
        tl.store(p_ptr + index, p, mask=inside)
        tl.store(m_ptr + index, m, mask=inside)
        tl.store(v_ptr + index, v, mask=inside)


def block_table(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
) -> Tensor:
    """Where each block of elements lies: int64 ``[blocks, 5]`` on the host.

    Columns are the addresses of parameter, gradient, first and second moment, and a length. Tensors
    are float32 and contiguous, and must outlive every use of the table.

    Raises:
        ValueError: a tensor is not float32, not contiguous, or not aligned to 16 bytes.
    """
    rows = []
    for group in zip(parameters, gradients, first, second, strict=True):
        for tensor in group:
            if tensor.dtype != torch.float32 or not tensor.is_contiguous():
                raise ValueError(f"{tensor.dtype} {tuple(tensor.shape)} is not contiguous float32")
            if tensor.data_ptr() % 16:
                raise ValueError(f"a tensor of shape {tuple(tensor.shape)} is not 16-byte aligned")
        size = group[0].numel()
        starts = torch.arange(0, size, _BLOCK, dtype=torch.int64)
        addresses = torch.tensor([tensor.data_ptr() for tensor in group], dtype=torch.int64)
        lengths = (size - starts).clamp(max=_BLOCK)
        rows.append(torch.cat((addresses + starts[:, None] * 4, lengths[:, None]), dim=1))
    return torch.cat(rows)


def adamw_blocks(
    blocks: Tensor,
    scalars: Tensor,
    halted: Tensor,
    *,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Update parameters and moments in place; gradients are only read.

    Args:
        blocks: a `block_table`, on the device.
        scalars: float32 ``[4]`` on the device: learning rate, learning rate over the first bias
            correction, square root of the second bias correction, clip coefficient.
        halted: bool scalar on the device; True leaves everything as it is.
        betas: decay rates of the moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay.
    """
    with torch.cuda.device(blocks.device):
        _adamw_block[(len(blocks),)](
            blocks,
            scalars,
            halted,
            betas[0],
            betas[1],
            eps,
            weight_decay,
            BLOCK=_BLOCK,
            num_warps=8,
        )
