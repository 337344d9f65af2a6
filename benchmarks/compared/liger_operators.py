"""Liger's tests of single operators, with its shapes, inputs, references and tolerances.

Liger holds its kernels against transformers' or torch's own operators; here the trainer's
operators stand in the kernels' place. Liger has no kernel, and so no test, for attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.models.llama import modeling_llama

from benchmarks.compared import upstream
from benchmarks.compared.comparing import liger_close, torch_close
from benchmarks.compared.seed import OFFSET
from falsifiers.subject import Subject

DTYPES = ("float32", "bfloat16")
_RMSNORM = ((2, 128, 512), (5, 123, 123))
_ROPE = ((1, 128, 32, 32, 64), (2, 128, 32, 32, 64), (1, 128, 32, 8, 64), (2, 128, 32, 8, 64))
_SWIGLU = ((2, 256, 256, 512), (6, 42, 123, 431))
_LOSS = ((4, 47, 31, 123), (8, 128, 1024, 4096))


def _randn(*shape: int, dtype: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 100 * OFFSET)
    return torch.randn(shape, generator=generator).to(getattr(torch, dtype))


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [tensor.clone().requires_grad_() for tensor in tensors]


def _run(
    function: Callable[..., Any], inputs: Sequence[Tensor], upstream_gradients: Sequence[Tensor]
) -> list[Tensor]:
    """Outputs and gradients of all inputs."""
    leaves = _leaves(*inputs)
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    pairs = zip(outputs, upstream_gradients, strict=True)
    torch.autograd.backward(outputs, [g.to(o.dtype) for o, g in pairs])
    return [o.detach() for o in outputs] + [_gradient(leaf) for leaf in leaves]


def _gradient(leaf: Tensor) -> Tensor:
    return torch.full_like(leaf, torch.nan) if leaf.grad is None else leaf.grad


@dataclass(frozen=True)
class _Rms:
    shape: tuple[int, int, int]
    dtype: str

    def inputs(self) -> tuple[list[Tensor], list[Tensor]]:
        x = _randn(*self.shape, dtype=self.dtype, seed=1)
        return [x, torch.ones(self.shape[-1])], [_randn(*self.shape, dtype=self.dtype, seed=2)]

    def reference(self, x: Tensor, weight: Tensor) -> Tensor:
        norm = modeling_llama.LlamaRMSNorm(self.shape[-1], eps=1e-6)
        del norm.weight
        norm.weight = weight.to(x.dtype)  # type: ignore[assignment]
        return norm(x)  # type: ignore[no-any-return]


@cache
def _expected_rms(case: _Rms) -> list[Tensor]:
    return _run(case.reference, *case.inputs())


def rmsnorm(subject: Subject, _: Path) -> None:
    """RMSNorm with unit weights, forward and backward."""
    operators = subject.operators()
    for dtype in DTYPES:
        for shape in _RMSNORM:
            case = _Rms(shape, dtype)
            ours = _run(lambda x, w: operators.rmsnorm(x, w, eps=1e-6), *case.inputs())
            names = ("output", "gradient of x", "gradient of weight")
            for name, expected, actual in zip(names, _expected_rms(case), ours, strict=True):
                liger_close(f"{name}, {dtype} {shape}", expected, actual, upstream.RMSNORM[dtype])


def _rope_reference(shape: tuple[int, ...]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """transformers' rotation by exact tables.

    Liger hands one pair of tables to both sides, so that a fault in them cannot show. Here the
    trainer makes its own, and is held against tables computed in float64.
    """
    _, length, _, _, head_dim = shape
    frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2).double() / head_dim)
    angles = torch.arange(length).double()[:, None] * frequencies
    angles = torch.cat((angles, angles), -1)[None]

    def rotate(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)
        rotated: tuple[Tensor, Tensor] = modeling_llama.apply_rotary_pos_emb(q, k, cos, sin)
        return rotated

    return rotate


def _rope_inputs(shape: tuple[int, ...], dtype: str) -> tuple[list[Tensor], list[Tensor]]:
    batch, length, heads, kv_heads, head_dim = shape
    sizes = [(batch, length, n, head_dim) for n in (heads, kv_heads)]
    made = [_randn(*size, dtype=dtype, seed=i) for i, size in enumerate(sizes * 2)]
    turned = [one.transpose(1, 2) for one in made]
    return turned[:2], turned[2:]


@cache
def _expected_rope(shape: tuple[int, ...], dtype: str) -> list[Tensor]:
    return _run(_rope_reference(shape), *_rope_inputs(shape, dtype))


def _compare_rope(
    subject: Subject, shape: tuple[int, ...], expected: list[Tensor], dtype: str
) -> None:
    operators = subject.operators()
    ours = _run(lambda q, k: operators.rope(q, k, theta=10000.0), *_rope_inputs(shape, dtype))
    names = ("q", "k", "gradient of q", "gradient of k")
    for name, theirs, actual in zip(names, expected, ours, strict=True):
        torch_close(f"{name}, {dtype} {shape}", theirs, actual, upstream.ROPE[dtype])


def rope(subject: Subject, _: Path) -> None:
    """Rotation of queries and keys, forward and backward, but for its two shapes of 33 million."""
    for dtype in DTYPES:
        for shape in _ROPE:
            _compare_rope(subject, shape, _expected_rope(shape, dtype), dtype)


def _mlp_inputs(shape: tuple[int, ...], dtype: str) -> tuple[list[Tensor], list[Tensor]]:
    batch, length, hidden, inner = shape
    x = _randn(batch, length, hidden, dtype=dtype, seed=1)
    gate, up = (_randn(hidden, inner, dtype=dtype, seed=s) for s in (2, 3))
    down = _randn(inner, hidden, dtype=dtype, seed=4)
    return [x, gate, up, down], [_randn(batch, length, hidden, dtype=dtype, seed=5)]


@cache
def _expected_mlp(shape: tuple[int, ...], dtype: str) -> list[Tensor]:
    silu = torch.nn.functional.silu
    return _run(lambda x, g, u, d: (silu(x @ g) * (x @ u)) @ d, *_mlp_inputs(shape, dtype))


def swiglu(subject: Subject, _: Path) -> None:
    """A whole gated feed-forward network with normal(0, 1) weights, forward and backward."""
    gated = subject.operators().swiglu
    names = ("output", *(f"gradient of {n}" for n in ("x", "gate", "up", "down")))
    for dtype in DTYPES:
        for shape in _SWIGLU:
            inputs = _mlp_inputs(shape, dtype)
            ours = _run(lambda x, g, u, d: gated(x @ g, x @ u) @ d, *inputs)
            expected = _expected_mlp(shape, dtype)
            for name, theirs, actual in zip(names, expected, ours, strict=True):
                torch_close(f"{name}, {dtype} {shape}", theirs, actual, upstream.SWIGLU[dtype])


@dataclass(frozen=True)
class _Loss:
    shape: tuple[int, int, int, int]
    dtype: str
    reduction: str

    def inputs(self) -> tuple[list[Tensor], Tensor, Tensor]:
        """Hidden states and head, targets, and which rows count."""
        batch, length, hidden, vocabulary = self.shape
        rows = batch * length
        generator = torch.Generator().manual_seed(3 + 100 * OFFSET)
        x = _randn(rows, hidden, dtype=self.dtype, seed=1)
        weight = torch.rand(vocabulary, hidden, generator=generator)
        weight = weight.to(getattr(torch, self.dtype)).float()
        targets = torch.randint(0, vocabulary, (rows,), generator=generator)
        ignored = int(torch.randint(1, rows // 2, (1,), generator=generator))
        counts = torch.ones(rows)
        counts[torch.randperm(rows, generator=generator)[:ignored]] = 0
        return [x, weight], targets, counts

    def scale(self, counts: Tensor) -> float:
        return 1.0 if self.reduction == "sum" else 1.0 / float(counts.sum())


@cache
def _expected_loss(case: _Loss) -> list[Tensor]:
    tensors, targets, counts = case.inputs()
    labels = targets.masked_fill(counts == 0, -100)

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        logits = (x @ weight.to(x.dtype).T).float()
        return cross_entropy(logits, labels, reduction=case.reduction)

    return _run(loss, tensors, [torch.ones(())])


def _compare_loss(subject: Subject, shape: tuple[int, int, int, int]) -> None:
    fused = subject.operators().linear_cross_entropy
    for reduction, dtype in upstream.LINEAR_CROSS_ENTROPY:
        case = _Loss(shape, dtype, reduction)
        tensors, targets, counts = case.inputs()
        scale = case.scale(counts)

        def loss(x: Tensor, weight: Tensor, scale: float = scale) -> Tensor:
            return fused(x, weight, targets, counts) * scale  # noqa: B023

        ours = _run(loss, tensors, [torch.ones(())])
        names = ("loss", "gradient of hidden", "gradient of weight")
        tolerance = upstream.LINEAR_CROSS_ENTROPY[reduction, dtype]
        for name, expected, actual in zip(names, _expected_loss(case), ours, strict=True):
            liger_close(f"{name}, {reduction} {dtype} {shape}", expected, actual, tolerance)


def linear_cross_entropy(subject: Subject, _: Path) -> None:
    """Head and loss in one, some rows ignored, forward and backward, a small shape."""
    _compare_loss(subject, _LOSS[0])


def linear_cross_entropy_of_large_shapes(subject: Subject, _: Path) -> None:
    """The same over 4096 columns and 1024 rows."""
    _compare_loss(subject, _LOSS[1])
