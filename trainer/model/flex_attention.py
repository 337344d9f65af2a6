"""Causal attention whose backward adds in a fixed order, for bitwise reproducible training.

FlexAttention computes the gradients of queries and of keys and values in two kernels, each of which
owns what it writes. It is fast only inside a compiled layer, and works in blocks of 128 positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import FlexKernelOptions

_BLOCK = 128
_CAUSAL: dict[str, int | bool] = {
    # Every query sees itself, and what it sees is what comes first.
    "ROWS_GUARANTEED_SAFE": True,
    "BLOCKS_ARE_CONTIGUOUS": True,
}
# For heads of `_TUNED_HEAD` in 16 bits on `_HOPPER`: the fastest backward of Inductor's candidates.
# Written down and not left to its autotuning: what hangs on a timing can change with the process.
_TUNED: dict[str, int | bool] = {
    **_CAUSAL,
    "bwd_BLOCK_M1": 64,
    "bwd_BLOCK_N1": 64,
    "bwd_BLOCK_M2": 64,
    "bwd_BLOCK_N2": 64,
    "bwd_num_warps": 4,
    "bwd_num_stages": 3,
}
_TUNED_HEAD = 64
_HOPPER = (9, 0)


class FlexCausalAttention(nn.Module):
    """What `attention.ScaledDotProductAttention` computes. One instance serves all layers.

    Lengths that are no multiple of 128 take the fused kernels, which torch's deterministic mode
    keeps to those that are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mask: BlockMask | None = None
        self._length = 0
        self._hopper = False

    def prepare(self, length: int, device: torch.device) -> None:
        """Make the causal mask for sequences of `length` positions, outside of compiled code."""
        if length != self._length:
            whole = length % _BLOCK == 0
            size = length, length
            self._mask = (
                create_block_mask(_is_causal, None, None, *size, device=device) if whole else None
            )
            self._length = length
            self._hopper = (
                device.type == "cuda" and torch.cuda.get_device_capability(device) == _HOPPER
            )

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``q [B, H, T, D], k and v [B, K, T, D]`` -> ``[B, H, T, D]``."""
        grouped = q.shape[1] != k.shape[1]
        if self._mask is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        tuned = self._hopper and q.dtype.itemsize == 2 and q.shape[-1] == _TUNED_HEAD
        mixed = flex_attention(
            q,
            k,
            v,
            block_mask=self._mask,
            enable_gqa=grouped,
            kernel_options=cast("FlexKernelOptions", _TUNED if tuned else _CAUSAL),
        )
        assert isinstance(mixed, Tensor)
        return mixed


def _is_causal(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query >= key
