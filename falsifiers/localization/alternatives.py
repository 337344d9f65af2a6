"""What an operator might have computed instead: the same operator in float64 with one known fault.

Each alternative is a function of no arguments that returns the outputs by name, differentiable in
the tensors given, so that a wrong forward also explains the backward that belongs to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from falsifiers.reference import operators as exact

Alternative = tuple[str, Callable[[], dict[str, Tensor]]]
Tensors = Mapping[str, Tensor]


def forward_alternatives(
    kind: str, inputs: Tensors, parameters: Tensors, settings: Mapping[str, float], others: Tensors
) -> Iterator[Alternative]:
    """Known faults of an operator of this kind.

    Args:
        kind: as in `OperatorRecord`.
        inputs: float64, by argument name.
        parameters: float64, by local name.
        settings: of the configuration.
        others: parameters of other operators that have this one's shapes, by full name.
    """
    makers: dict[str, Callable[..., Iterator[tuple[str, Callable[[], Any]]]]] = {
        "embedding": _embedding,
        "linear": _linear,
        "rmsnorm": _rmsnorm,
        "rope": _rope,
        "attention": _attention,
        "swiglu": _swiglu,
        "residual": _residual,
        "linear_cross_entropy": _loss,
    }
    given = {**inputs, **parameters, "settings": settings, "others": others}
    for words, compute in makers[kind](**given):
        yield words, partial(_named, kind, compute)


def backward_alternatives(
    kind: str, inputs: Tensors, parameters: Tensors, settings: Mapping[str, float]
) -> Iterator[Alternative]:
    """Faults that show in the gradient only: the outputs are exact."""
    makers: dict[str, Callable[..., Iterator[tuple[str, Callable[[], Any]]]]] = {
        "rmsnorm": _rmsnorm_backward,
        "rope": _rope_backward,
        "attention": _attention_backward,
        "swiglu": _swiglu_backward,
    }
    if kind in makers:
        for words, compute in makers[kind](**inputs, **parameters, settings=settings):
            yield words, partial(_named, kind, compute)


def _named(kind: str, compute: Callable[[], Any]) -> dict[str, Tensor]:
    result = compute()
    results = result if isinstance(result, tuple) else (result,)
    return dict(zip(exact.OUTPUTS[kind], results, strict=True))


def _narrow(x: Tensor) -> Tensor:
    """Rounded to bfloat16, with the gradient of no rounding."""
    return x + (x.detach().bfloat16().double() - x.detach())


_Guesses = Iterator[tuple[str, Callable[[], Any]]]


def _embedding(tokens: Tensor, weight: Tensor, others: Tensors, **_: Any) -> _Guesses:
    yield "row of the next id", lambda: weight[(tokens + 1) % len(weight)]
    yield "row of the id before", lambda: weight[tokens - 1]
    yield "rounded to bfloat16", lambda: _narrow(weight[tokens])
    scale = math.sqrt(weight.shape[1])
    yield "scaled by the root of the width", lambda: weight[tokens] * scale


def _linear(
    x: Tensor, weight: Tensor, others: Tensors, bias: Tensor | None = None, **_: Any
) -> _Guesses:
    product = partial(exact.linear, x)
    if bias is not None:
        yield "bias not added", lambda: product(weight)
        yield "bias added twice", lambda: product(weight, 2 * bias)
        yield "bias subtracted", lambda: product(weight, -bias)
    if weight.shape[0] == weight.shape[1]:
        yield "weight transposed", lambda: product(weight.T, bias)
    yield "weight rounded to bfloat16", lambda: product(_narrow(weight), bias)
    yield "inputs rounded to bfloat16", lambda: exact.linear(_narrow(x), weight, bias)
    for name, other in others.items():
        if other.shape == weight.shape:
            yield f"weight of {name}", partial(product, other.double(), bias)
        elif bias is not None and other.shape == bias.shape:
            yield f"bias of {name}", partial(product, weight, other.double())
        elif bias is None and other.shape == weight.shape[:1] and name.endswith("bias"):
            yield f"bias of {name} added", partial(product, weight, other.double())


def _rmsnorm(
    x: Tensor, weight: Tensor, settings: Mapping[str, float], others: Tensors, **_: Any
) -> _Guesses:
    eps, width = settings["eps"], x.shape[-1]
    square = (x * x).mean(-1, keepdim=True)
    root = torch.sqrt(square + eps)
    for other in (0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3):
        if other != eps:
            words = f"eps is {other:g}, not {eps:g}" if other else "eps left out"
            yield words, partial(exact.rmsnorm, x, weight, other)
    yield "eps outside the root", lambda: x / (square.sqrt() + eps) * weight
    yield "scaled by 1 + weight", lambda: x / root * (weight + 1.0)
    yield "weight not applied", lambda: x / root
    unbiased = torch.sqrt(square * width / max(width - 1, 1) + eps)
    yield "sum of squares divided by width − 1", lambda: x / unbiased * weight
    yield "statistics rounded to bfloat16", lambda: x / torch.sqrt(_narrow(square) + eps) * weight
    inverse = 1.0 / root
    yield "statistics rounded to bfloat16 after the root", lambda: x * _narrow(inverse) * weight
    yield "weight rounded to bfloat16", lambda: x / root * _narrow(weight)
    yield "rounded to bfloat16 before the weight", lambda: _narrow(x / root) * weight
    centred = x - x.mean(-1, keepdim=True)
    yield "mean subtracted (LayerNorm)", lambda: exact.rmsnorm(centred, weight, eps)
    yield "not normalised", lambda: x * weight
    yield "input clamped to float16", lambda: exact.rmsnorm(x.clamp(-65504, 65504), weight, eps)
    whole = width // 8 * 8
    if 0 < whole < width:
        tail = x[..., :whole].square().sum(-1, keepdim=True) / width
        yield "last columns not summed", lambda: x / torch.sqrt(tail + eps) * weight
    for name, tensor in others.items():
        if tensor.shape == weight.shape and name.endswith("weight"):
            yield f"weight of {name}", partial(exact.rmsnorm, x, tensor.double(), eps)


def _rotated(
    x: Tensor,
    theta: float,
    *,
    first: int = 0,
    every: int = 0,
    direction: float = 1.0,
    angles_in: torch.dtype = torch.float64,
    tables_in: torch.dtype = torch.float64,
    interleaved: bool = False,
) -> Tensor:
    """`x` rotated as `reference.operators.rope` does, with one thing otherwise."""
    length, size = x.shape[-2:]
    place = torch.arange(first, length + first, dtype=torch.float64, device=x.device)
    if every:
        place = place % every
    pair = torch.arange(size // 2, dtype=torch.float64, device=x.device)
    if angles_in == torch.float32:  # frequencies by division, as most implementations do
        exponent = torch.arange(0, size, 2, dtype=torch.float32, device=x.device) / size
        angle = torch.outer(place.float(), 1.0 / theta**exponent).double()
    else:
        frequency = (theta ** (-2.0 * pair / size)).to(angles_in)
        angle = torch.outer(place.to(angles_in), frequency).double()
    cos = angle.cos().to(tables_in).double()
    sin = direction * angle.sin().to(tables_in).double()
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def _rope(q: Tensor, k: Tensor, settings: Mapping[str, float], **_: Any) -> _Guesses:
    theta = settings["theta"]

    def both(base: float = theta, **how: Any) -> tuple[Tensor, Tensor]:
        return _rotated(q, base, **how), _rotated(k, base, **how)

    yield "not rotated", lambda: (q, k)
    yield "rotated interleaved pairs", lambda: both(interleaved=True)
    yield "keys rotated by one position too many", lambda: (both()[0], both(first=1)[1])
    yield "queries rotated by one position too many", lambda: (both(first=1)[0], both()[1])
    yield "rotated by one position too many", lambda: both(first=1)
    yield "rotated by one position too few", lambda: both(first=-1)
    yield "rotated the other way", lambda: both(direction=-1.0)
    for other in (theta / 2, theta * 2, 1e4, 5e5, 1e6, 1e5):
        if other != theta:
            yield f"theta is {other:g}, not {theta:g}", partial(both, other)
    yield "angles in bfloat16", lambda: both(angles_in=torch.bfloat16)
    yield "angles in float32", lambda: both(angles_in=torch.float32)
    yield "tables in bfloat16", lambda: both(tables_in=torch.bfloat16)
    for every in (512, 1024, 2048, 4096):
        if q.shape[-2] > every:
            yield f"positions start again after {every}", partial(both, every=every)


def _attended(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    heads: Tensor | None = None,
    scale: float | None = None,
    ahead: int | None = 0,
    future: float = -math.inf,
    cap: float = 0.0,
    extra: bool = False,
    narrow: bool = False,
) -> Tensor:
    """Attention as `reference.operators.attention` has it, with one thing otherwise."""
    group = q.shape[1] // k.shape[1]
    if heads is None:
        heads = torch.arange(q.shape[1], device=q.device) // group
    keys, values = k[:, heads], v[:, heads]
    scores = q @ keys.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if ahead is not None:
        length = q.shape[-2]
        above = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1 + ahead)
        scores = (
            scores.masked_fill(above, future) if future == -math.inf else scores + above * future
        )
    weights = scores.softmax(-1)
    if narrow:
        weights = _narrow(weights)
    mixed = weights @ values
    return mixed * scores.logsumexp(-1, keepdim=True).sigmoid() if extra else mixed


def _attention(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> _Guesses:
    attend = partial(_attended, q, k, v)
    size, heads, kv_heads, length = q.shape[-1], q.shape[1], k.shape[1], k.shape[2]
    yield "mask missing", lambda: attend(ahead=None)
    yield "mask one token late: each sees the next", lambda: attend(ahead=1)
    yield "mask adds a finite number", lambda: attend(future=-1e4)
    yield "unscaled", lambda: attend(scale=1.0)
    yield "scaled twice (1/D)", lambda: attend(scale=1.0 / size)
    narrow_scale = torch.tensor(size**-0.5).bfloat16().item()
    if narrow_scale != size**-0.5:
        yield "scale rounded to bfloat16", lambda: attend(scale=narrow_scale)
    for padded in (16, 32, 64, 128, 256):
        if padded > size:
            words = f"scale of a head of {padded}, not {size}"
            yield words, partial(attend, scale=padded**-0.5)
    yield "softmax with one more in the denominator", lambda: attend(extra=True)
    yield "weights rounded to bfloat16", lambda: attend(narrow=True)
    for cap in (30.0, 50.0):
        yield f"scores soft-capped at {cap:g}", partial(attend, cap=cap)
    order, group = torch.arange(heads, device=q.device), heads // kv_heads
    if 1 < kv_heads < heads:
        yield "key/value heads tiled instead of repeated", lambda: attend(heads=order % kv_heads)
        late = ((order + 1) // group).clamp(max=kv_heads - 1)
        yield "last query head of a group reads the next group's head", lambda: attend(heads=late)
        border = order.clone() // group
        border[group - 1], border[group] = 1, 0
        yield "two query heads at a group's border exchanged", lambda: attend(heads=border)
    if kv_heads > 1:
        back = (kv_heads - 1) - order // group
        yield "key/value heads in reverse", lambda: attend(heads=back)
    for block in (128, 64, 32):
        whole = length // block * block
        if 0 < whole < length:
            kept = torch.arange(length, device=v.device)[:, None] < whole
            yield (
                f"values after the last whole block of {block} lost",
                partial(_attended, q, k, v * kept),
            )


def _swish(gate: Tensor, up: Tensor, beta: float) -> Tensor:
    return gate * torch.sigmoid(beta * gate) * up


def _swiglu(gate: Tensor, up: Tensor, **_: Any) -> _Guesses:
    yield "GELU for SiLU", lambda: F.gelu(gate) * up
    yield "tanh GELU for SiLU", lambda: F.gelu(gate, approximate="tanh") * up
    yield "quick GELU: sigmoid(1.702 x)", lambda: _swish(gate, up, 1.702)
    yield "multiplied by up + 1", lambda: F.silu(gate) * (up + 1.0)
    yield "gate and up exchanged", lambda: F.silu(up) * gate
    yield "activation missing", lambda: gate * up
    yield "ReLU for SiLU", lambda: F.relu(gate) * up
    yield "sigmoid only", lambda: torch.sigmoid(gate) * up
    yield "sigmoid rounded to bfloat16", lambda: gate * _narrow(torch.sigmoid(gate)) * up
    for limit in (7.0, 10.0, 20.0, 64.0):
        if bool((gate > limit).any()):
            clamped = gate.clamp(max=limit)
            yield f"gate clamped at {limit:g}", partial(exact.swiglu, clamped, up)
    for beta in (0.9, 0.99, 1.01, 1.1):
        yield f"sigmoid of {beta:g} x", partial(_swish, gate, up, beta)


def _residual(stream: Tensor, branch: Tensor, **_: Any) -> _Guesses:
    yield "branch not added", lambda: stream
    yield "stream dropped", lambda: branch
    yield "branch added twice", lambda: stream + 2 * branch
    yield "branch subtracted", lambda: stream - branch
    yield "halved", lambda: (stream + branch) / 2
    yield "branch rounded to bfloat16", lambda: stream + _narrow(branch)


def _loss(
    hidden: Tensor, targets: Tensor, weight: Tensor, mask: Tensor | None = None, **_: Any
) -> _Guesses:
    logits = hidden @ weight.T
    keep = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask.bool()
    losses = exact.token_losses(logits, targets)
    weighted = losses * keep.flatten()
    yield "masked targets count", lambda: losses.sum()
    yield "mean instead of sum", lambda: weighted.sum() / keep.sum()
    yield "targets one place later", lambda: _sum(logits, targets.roll(-1, -1), keep)
    yield "targets are the inputs", lambda: _sum(logits, targets.roll(1, -1), keep)
    for cap in (30.0, 50.0):
        yield (
            f"logits soft-capped at {cap:g}",
            partial(_sum, cap * torch.tanh(logits / cap), targets, keep),
        )
    smooth = weighted - 0.1 * (
        weighted + logits.log_softmax(-1).mean(-1).flatten() * keep.flatten()
    )
    yield "labels smoothed by 0.1", lambda: smooth.sum()
    for block in (64, 8):
        whole = logits.shape[-1] // block * block
        if 0 < whole < logits.shape[-1]:
            words = f"vocabulary after the last whole block of {block} not in the softmax"
            yield words, partial(_cut_softmax, logits, targets, keep, whole)
    for limit in (100.0, 20.0):
        if bool((losses > limit).any()):
            clamped = weighted.clamp(max=limit)
            yield f"losses clipped at {limit:g}", clamped.sum
    yield "logits rounded to bfloat16", lambda: _sum(_narrow(logits), targets, keep)
    yield "losses rounded to bfloat16", lambda: _narrow(weighted).sum()
    for eps in (1e-12, 1e-8, 1e-6):
        yield f"log of probability + {eps:g}", partial(_log_of_more, weighted, eps)
    for bits in (8, 16):
        if int(targets.max()) >= 2**bits:
            narrow = targets % 2**bits
            yield f"target ids in {bits} bits", partial(_sum, logits, narrow, keep)


def _at(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(-1, targets[..., None]).flatten()


def _cut_softmax(logits: Tensor, targets: Tensor, keep: Tensor, whole: int) -> Tensor:
    losses = logits[..., :whole].logsumexp(-1).flatten() - _at(logits, targets)
    return losses[keep.flatten()].sum()


def _log_of_more(losses: Tensor, eps: float) -> Tensor:
    return -((-losses).exp() + eps).log().sum()


def _sum(logits: Tensor, targets: Tensor, keep: Tensor) -> Tensor:
    return exact.token_losses(logits, targets, keep).sum()


def _rmsnorm_backward(
    x: Tensor, weight: Tensor, settings: Mapping[str, float], **_: Any
) -> _Guesses:
    scale = ((x * x).mean(-1, keepdim=True) + settings["eps"]).rsqrt()
    yield "gradient lacks the term through the mean square", lambda: x * scale.detach() * weight


def _rope_backward(q: Tensor, k: Tensor, settings: Mapping[str, float], **_: Any) -> _Guesses:
    theta = settings["theta"]
    q_right, k_right = exact.rope(q, k, theta)

    def passed(x: Tensor, right: Tensor) -> Tensor:
        return x + (right - x).detach()

    def turned_on(x: Tensor, right: Tensor) -> Tensor:
        other = _rotated(x, theta, direction=-1.0)
        return other + (right - other).detach()

    for words, spoil in (("not turned back", passed), ("turned on instead of back", turned_on)):
        pair = spoil(q, q_right), spoil(k, k_right)
        yield f"gradients {words}", partial(tuple, pair)
        yield f"gradient of q {words}", partial(tuple, (pair[0], k_right))
        yield f"gradient of k {words}", partial(tuple, (q_right, pair[1]))


def _attention_backward(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> _Guesses:
    group = q.shape[1] // k.shape[1]
    if group == 1:
        return

    def weighed(x: Tensor, factor: float) -> Tensor:
        return x * factor + (x * (1 - factor)).detach()

    yield (
        "gradients of k and v averaged over the group instead of summed",
        lambda: exact.attention(q, weighed(k, 1 / group), weighed(v, 1 / group)),
    )
    place = torch.arange(q.shape[1], device=q.device) % group
    for count in range(1, group):
        silent = (place >= group - count)[None, :, None, None]
        words = f"gradients of k and v lack the last {count} of {group} query heads of each group"
        yield words, partial(_some_silent, q, k, v, group, silent)


def _some_silent(q: Tensor, k: Tensor, v: Tensor, group: int, silent: Tensor) -> Tensor:
    repeated = (x.repeat_interleave(group, dim=1) for x in (k, v))
    keys, values = (torch.where(silent, x.detach(), x) for x in repeated)
    return exact.attention(q, keys, values)


def _swiglu_backward(gate: Tensor, up: Tensor, **_: Any) -> _Guesses:
    yield (
        "gradient of the gate lacks silu · (1 − sigmoid)",
        lambda: gate * gate.detach().sigmoid() * up,
    )
