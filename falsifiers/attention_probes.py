"""What attention alone is tried on, and what is read out of it: its weights, and fair yardsticks.

The operator returns outputs only. With one-hot values an output is a weight, so the weights that
are judged are those that the real operator used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from falsifiers.fixtures import Case, Subject
from falsifiers.reference import operators as reference
from falsifiers.reference.flash import flash_backward
from falsifiers.subject import Execution
from falsifiers.subject_parts import Operators

FIXED_ORDER = Execution(compiled=True, deterministic=True)


@dataclass(frozen=True)
class Heads:
    """Inputs of one call, and the gradient that its output receives.

    Attributes:
        q: ``[1, H, T, D]``.
        k: ``[1, K, T, D]``.
        v: ``[1, K, T, D]``.
        grad_out: ``[1, H, T, D]``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    grad_out: Tensor

    @property
    def group(self) -> int:
        """Query heads that share a key/value head."""
        return self.q.shape[1] // self.k.shape[1]


def operators_of(subject: Subject, case: Case) -> Operators:
    """The operators of `case.path`: eager, or fixed-order, which is compiled and deterministic."""
    if case.path == "fixed-order":
        return subject.operators(FIXED_ORDER)
    return subject.operators()


def random_heads(case: Case) -> Heads:
    """Normal inputs of a case; ``q`` times `case.sharpness`, so that logits grow with it."""
    generator = torch.Generator().manual_seed(case.seed)
    dtype = getattr(torch, case.dtype)

    def normal(heads: int) -> Tensor:
        shape = (1, heads, case.length, case.head_dim)
        return torch.randn(shape, generator=generator).to(case.device, dtype)

    q, k, v, grad_out = map(normal, (case.heads, case.kv_heads, case.kv_heads, case.heads))
    return Heads(q * case.sharpness, k, v, grad_out)


def attention_rows(operators: Operators, q: Tensor, k: Tensor) -> Tensor:
    """Weights that the operator gives each key: ``[1, H, T, D], [1, K, T, D] -> [H, T, T]``.

    Keys are taken D at a time, each block as an element of one batch. Float64; each weight has been
    rounded once to the compute dtype, as any output is.
    """
    length, size = q.shape[-2:]
    blocks = -(-length // size)
    one_hot = torch.eye(length, blocks * size, dtype=q.dtype, device=q.device)
    values = one_hot.view(length, blocks, size).transpose(0, 1)[:, None]
    shape = (blocks, k.shape[1], length, size)
    queries, keys = (x.repeat(blocks, 1, 1, 1) for x in (q, k))
    out = operators.attention(queries, keys, values.expand(shape).contiguous())
    return out.detach().permute(1, 2, 0, 3).flatten(2)[..., :length].double()


def outputs_and_gradients(
    operators: Operators, q: Tensor, k: Tensor, v: Tensor, grad_out: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The operator's output, and the gradients of q, k and v by name."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    out = operators.attention(leaves[0], leaves[1], leaves[2])
    gradients = torch.autograd.grad(out, leaves, grad_out)
    return out.detach(), dict(zip("qkv", gradients, strict=True))


def exact_outputs_and_gradients(heads: Heads) -> tuple[Tensor, dict[str, Tensor]]:
    """The oracle's, in float64."""
    return _plain(heads, torch.float64)


def kernel_errors(heads: Heads) -> dict[str, float]:
    """Errors by name that are no fault: of plain softmax or plain FlashAttention, the larger.

    ``out`` is relative to the exact output, q, k and v are relative to `gradient_sizes`.
    """
    exact_out, exact = exact_outputs_and_gradients(heads)
    out, plain = _plain(heads, heads.q.dtype)
    flash = flash_backward(heads.q, heads.k, heads.v, heads.grad_out)
    both = [gradient_errors(heads, gradients, exact) for gradients in (plain, flash)]
    out_error = float((out.double() - exact_out).norm() / exact_out.norm())
    return {"out": out_error} | {name: max(one[name] for one in both) for name in "qkv"}


def gradient_errors(
    heads: Heads, gradients: Mapping[str, Tensor], exact: Mapping[str, Tensor]
) -> dict[str, float]:
    """‖gradient − exact‖ by name, of those in `exact`, in units of `gradient_sizes`."""
    sizes = gradient_sizes(heads)
    return {n: float((gradients[n].double() - x).norm()) / sizes[n] for n, x in exact.items()}


def gradient_sizes(heads: Heads) -> dict[str, float]:
    """Norms that the gradients of q, k and v would have if no terms cancelled.

    One token, or a row that attends to one key alone, has gradients of exactly zero in q and k:
    differences of rounded numbers, which only the size of these numbers can bound.
    """
    q, k, v, grad_out = (x.double() for x in (heads.q, heads.k, heads.v, heads.grad_out))
    k, v = (x.repeat_interleave(heads.group, dim=1) for x in (k, v))
    length, size = q.shape[-2:]
    scale = 1.0 / math.sqrt(size)
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(diagonal=1)
    weights = (q @ k.transpose(-1, -2) * scale).masked_fill(future, -math.inf).softmax(-1)
    by_key = (grad_out @ v.transpose(-1, -2)).abs()
    scores = weights * (by_key + (weights * by_key).sum(-1, keepdim=True))
    terms = {
        "q": scores @ k.abs() * scale,
        "k": sum_groups(scores.transpose(-1, -2) @ q.abs() * scale, heads.group),
        "v": sum_groups(weights.transpose(-1, -2) @ grad_out.abs(), heads.group),
    }
    return {name: float(term.norm()) for name, term in terms.items()}


def sum_groups(x: Tensor, group: int) -> Tensor:
    """Sum the query heads that share a key/value head: ``[B, H, ...] -> [B, H / group, ...]``."""
    return x.reshape(x.shape[0], -1, group, *x.shape[2:]).sum(2)


def _plain(heads: Heads, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = [x.detach().to(dtype).requires_grad_() for x in (heads.q, heads.k, heads.v)]
    out = reference.attention(*leaves)
    gradients = torch.autograd.grad(out, leaves, heads.grad_out.to(dtype))
    return out.detach(), dict(zip("qkv", gradients, strict=True))
