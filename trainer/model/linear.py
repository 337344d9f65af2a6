"""Affine projections with float32 master weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Product(torch.autograd.Function):
    """``x @ cat(weights).T`` in the dtype of `x`, with float32 weight gradients.

    Autograd through a cast would round each weight gradient to the dtype of `x`, and spend one more
    pass over memory on casting it back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        cast = [weight.to(x.dtype) for weight in weights]
        joined = cast[0] if len(cast) == 1 else torch.cat(cast)
        ctx.save_for_backward(x, joined)
        ctx.sizes = [weight.shape[0] for weight in weights]
        return x @ joined.T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, joined = ctx.saved_tensors
        grad_x = grad @ joined if ctx.needs_input_grad[0] else None
        grad_joined = matmul_float32(grad.flatten(0, -2).T, x.flatten(0, -2))
        return grad_x, *grad_joined.split_with_sizes(ctx.sizes)


def matmul_float32(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` for matrices of one dtype, accumulated and returned in float32."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


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
        return self.apply_bias(_product(x, self.weight))

    def apply_bias(self, product: Tensor) -> Tensor:
        """Add the bias, where there is one, to ``[..., out]``."""
        return product if self.bias is None else product + self.bias.to(product.dtype)


def project(x: Tensor, *linears: Linear) -> tuple[Tensor, ...]:
    """Every one of `linears` applied to ``x [..., in]``."""
    return tuple(linear(x) for linear in linears)


def project_jointly(x: Tensor, *linears: Linear) -> Tensor:
    """`project`, concatenated: ``[..., in] -> [..., sum of out]``.

    One large matrix product fills a GPU better than several small ones.
    """
    joint = _product(x, *(linear.weight for linear in linears))
    if all(linear.bias is None for linear in linears):
        return joint
    parts = joint.split_with_sizes([linear.weight.shape[0] for linear in linears], dim=-1)
    biased = (linear.apply_bias(part) for linear, part in zip(linears, parts, strict=True))
    return torch.cat(list(biased), dim=-1)


def joins_projections(x: Tensor) -> bool:
    """Whether projections of `x` are multiplied out together: in code compiled for CUDA.

    Everywhere else each operator is a module that is called by itself, so that it can be watched.
    """
    return torch.compiler.is_compiling() and x.is_cuda


def _product(x: Tensor, *weights: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return x @ torch.cat([weight.to(x.dtype) for weight in weights]).T
    product: Tensor = _Product.apply(x, *weights)  # type: ignore[no-untyped-call]
    return product
