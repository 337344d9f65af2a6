"""Affine projection with a float32 master weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Module):
    """``x @ weight.T + bias`` in the dtype of `x`.

    Parameters are float32, ``weight [out, in]`` and, if asked for, ``bias [out]``; they are cast on
    use, so small updates are not lost to the rounding of bfloat16.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(out_features, dtype=torch.float32)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``."""
        return self.apply_bias(F.linear(x, self.weight.to(x.dtype)))

    def apply_bias(self, product: Tensor) -> Tensor:
        """Add the bias, where there is one, to ``[..., out]``."""
        return product if self.bias is None else product + self.bias.to(product.dtype)
