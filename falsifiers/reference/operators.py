"""The operators of a decoder, written out, in any dtype: oracle and plain comparator at once.

With float64 tensors these functions are the oracle. With float32 or bfloat16 tensors they are
*plain eager torch in that dtype*, the yardstick that a trainer's error is measured against:
matrix products, biases and products of activations round to the dtype each time, while the
statistics of RMSNorm, the rotation of RoPE, the sigmoid of SiLU, the softmax of attention and
the log-softmax of the loss are computed in float32 and cast once at the end. The sum of losses
stays in float32. In float64 nothing is ever narrower than float64.

Shapes: B batch, T length, H hidden, N heads, K key-value heads, D head size, V vocabulary.

`recompute` and `recompute_backward` take one operator of a trace by its kind, and its tensors by
these names:

====================  ======================================  ==========  ============
kind                  inputs                                  settings    outputs
====================  ======================================  ==========  ============
embedding             tokens; parameter weight                            out
linear                x; parameters weight, bias (optional)               out
rmsnorm               x; parameter weight                     eps         out
rope                  q, k                                    theta       q, k
attention             q, k, v                                             out
swiglu                gate, up                                            out
residual              stream, branch                                      out
linear_cross_entropy  hidden, targets, mask (optional);                   loss_sum
                      parameter weight
====================  ======================================  ==========  ============

Settings that a formula does not read (head counts, say: the shapes hold them) are ignored;
a surplus or missing tensor is an error.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import OracleInputError


def _internal_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    """Rows of `weight` ``[V, H]`` for int64 `tokens` ``[...]``: ``[..., H]``."""
    return weight[tokens]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x Wᵀ + b`` for `x` ``[..., in]``, `weight` ``[out, in]`` and `bias` ``[out]``."""
    product = x @ weight.T
    return product if bias is None else product + bias


def rmsnorm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x²) + eps) * weight`` over the last axis (Zhang & Sennrich 2019)."""
    wide = x.to(_internal_dtype(x))
    mean_square = (wide * wide).mean(dim=-1, keepdim=True)
    return (wide / torch.sqrt(mean_square + eps) * weight.to(wide.dtype)).to(x.dtype)


def rope(q: Tensor, k: Tensor, theta: float) -> tuple[Tensor, Tensor]:
    """Rotary position embedding (Su et al. 2021), half-split pairs, positions 0..T-1.

    Element i and element i + D/2 form a pair, turned by position * theta^(-2i/D).

    Args:
        q: ``[B, N, T, D]``.
        k: ``[B, K, T, D]``.
        theta: base of the frequencies.
    """
    return _rotate(q, theta), _rotate(k, theta)


def _rotate(x: Tensor, theta: float) -> Tensor:
    length, size = x.shape[-2:]
    pair = torch.arange(size // 2, dtype=torch.float64, device=x.device)
    position = torch.arange(length, dtype=torch.float64, device=x.device)
    angle = position[:, None] * theta ** (-2.0 * pair / size)[None, :]
    cos, sin = (t.to(_internal_dtype(x)) for t in (angle.cos(), angle.sin()))
    first, second = x.to(cos.dtype).chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal scaled dot-product attention with grouped queries (Ainslie et al. 2023).

    Query heads ``g·N/K .. (g+1)·N/K - 1`` read key-value head g.

    Args:
        q: ``[B, N, T, D]``.
        k: ``[B, K, T, D]``.
        v: ``[B, K, T, D]``.

    Returns:
        ``[B, N, T, D]``.
    """
    group = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(group, dim=1)
    v = v.repeat_interleave(group, dim=1)
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    length = q.shape[-2]
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(diagonal=1)
    scores = scores.to(_internal_dtype(q)).masked_fill(future, -math.inf)
    return torch.softmax(scores, dim=-1).to(q.dtype) @ v


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up``, silu(x) = x·sigmoid(x) (Shazeer 2020), elementwise."""
    wide = gate.to(_internal_dtype(gate))
    return (wide * torch.sigmoid(wide)).to(gate.dtype) * up


def residual(stream: Tensor, branch: Tensor) -> Tensor:
    """``stream + branch``."""
    return stream + branch


def linear_cross_entropy(
    hidden: Tensor, targets: Tensor, weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Sum of ``-log softmax(hidden Wᵀ)[target]`` over the targets that `mask` keeps, in nats.

    Args:
        hidden: ``[..., H]``.
        targets: int64 ``[...]``.
        weight: ``[V, H]``.
        mask: bool ``[...]``, True where the target counts. None counts all.

    Returns:
        Scalar, in float32 when `hidden` is narrower, never cast down.
    """
    logits = hidden @ weight.T
    return token_losses(logits, targets, mask).sum()


def token_losses(logits: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """``-log softmax(logits)[target]`` of each target that `mask` keeps, flat, in nats.

    The masked ones are left out before the logarithm, so that whatever stands there,
    an ignore index or an infinite logit, cannot reach the result or its gradient.
    """
    keep = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask.bool()
    kept = logits[keep]
    wide = kept.to(_internal_dtype(kept))
    log_probabilities = torch.log_softmax(wide, dim=-1)
    return -log_probabilities.gather(-1, targets[keep][:, None]).squeeze(-1)


OPERATORS: dict[str, Callable[..., Any]] = {
    "embedding": embedding,
    "linear": linear,
    "rmsnorm": rmsnorm,
    "rope": rope,
    "attention": attention,
    "swiglu": swiglu,
    "residual": residual,
    "linear_cross_entropy": linear_cross_entropy,
}

OUTPUTS: dict[str, tuple[str, ...]] = dict.fromkeys(OPERATORS, ("out",)) | {
    "rope": ("q", "k"),
    "linear_cross_entropy": ("loss_sum",),
}


def recompute(
    kind: str,
    inputs: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    settings: Mapping[str, float],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Outputs of one operator by name, with every floating tensor first cast to `dtype`.

    float64 gives the oracle; float32 or bfloat16 gives plain eager torch in that dtype.

    Raises:
        OracleInputError: unknown kind, or a tensor or setting missing or surplus.
    """
    with torch.no_grad():
        return _forward(kind, _cast(inputs, dtype), _cast(parameters, dtype), settings)


def recompute_backward(
    kind: str,
    inputs: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    settings: Mapping[str, float],
    grad_outputs: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of one operator's floating inputs and parameters, by name, in `dtype`.

    An output that `grad_outputs` does not name receives no gradient; what depends on no named
    output has a gradient of zero.

    Raises:
        OracleInputError: as `recompute`; also for a gradient of an output that does not exist.
    """
    leaves_in = _cast(inputs, dtype, differentiable=True)
    leaves_par = _cast(parameters, dtype, differentiable=True)
    with torch.enable_grad():
        outputs = _forward(kind, leaves_in, leaves_par, settings)
    unknown = sorted(grad_outputs.keys() - outputs.keys())
    if unknown or not grad_outputs:
        raise OracleInputError(
            f"{kind}: gradients of outputs {unknown or 'none'} were given, "
            f"the operator returns {sorted(outputs)}; name at least one of these"
        )
    grad_in = {name: x for name, x in leaves_in.items() if x.requires_grad}
    grad_par = {name: x for name, x in leaves_par.items() if x.requires_grad}
    gradients = torch.autograd.grad(
        [outputs[name] for name in grad_outputs],
        [*grad_in.values(), *grad_par.values()],
        [gradient.to(outputs[name].dtype) for name, gradient in grad_outputs.items()],
        materialize_grads=True,
    )
    split = len(grad_in)
    return (
        dict(zip(grad_in, gradients[:split], strict=True)),
        dict(zip(grad_par, gradients[split:], strict=True)),
    )


def _cast(
    tensors: Mapping[str, Tensor], dtype: torch.dtype, *, differentiable: bool = False
) -> dict[str, Tensor]:
    """Detached, with floating tensors in `dtype`; integers and masks as they are."""
    cast = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            cast[name] = tensor.detach().to(dtype).requires_grad_(differentiable)
        else:
            cast[name] = tensor
    return cast


def _forward(
    kind: str,
    inputs: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    settings: Mapping[str, float],
) -> dict[str, Tensor]:
    arguments = _arguments(kind, inputs, parameters, settings)
    result = OPERATORS[kind](**arguments)
    results = result if isinstance(result, tuple) else (result,)
    return dict(zip(OUTPUTS[kind], results, strict=True))


def _arguments(
    kind: str,
    inputs: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    settings: Mapping[str, float],
) -> dict[str, Any]:
    if kind not in OPERATORS:
        raise OracleInputError(f"operator kind {kind!r} is not one of {', '.join(OPERATORS)}")
    signature = inspect.signature(OPERATORS[kind]).parameters
    tensors = {**inputs, **parameters}
    used = {name: value for name, value in settings.items() if name in signature}
    arguments = {**tensors, **used}
    required = {n for n, p in signature.items() if p.default is inspect.Parameter.empty}
    missing, surplus = sorted(required - arguments.keys()), sorted(tensors.keys() - signature)
    clashing = sorted((inputs.keys() & parameters.keys()) | (tensors.keys() & used.keys()))
    if missing or surplus or clashing:
        raise OracleInputError(
            f"{kind}: missing {missing}, surplus {surplus}, given twice {clashing}; "
            f"it takes {list(signature)}, each once, as input, parameter or setting"
        )
    return arguments
