"""Operators of the forward pass that compute something else than they should."""

from __future__ import annotations

from functools import partial
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.defects.slopes import spoiled_by
from falsifiers.wrapping import wrap_configuration


def _replace_forward(plant: Plant, target: str, spoil: Any) -> None:
    """``spoil(clean_forward, module, *inputs)`` instead of a module's forward."""

    def make(original: Any) -> Any:
        def forward(module: Any, *inputs: Any) -> Any:
            other = partial(spoil, original, module)
            return spoiled_by(plant, partial(original, module), other, *inputs)

        return forward

    plant.patch(target, make)


@defect(
    "rmsnorm-eps-hardcoded",
    kind=SOURCE,
    imitates="the seed: 1e-5 whatever the configuration says",
    symptom="RMSNorm uses eps 1e-5 in a model configured with 1e-6",
    hidden="at unit RMS the two differ by 5e-6, and the loss may even fall",
)
def rmsnorm_eps_hardcoded(plant: Plant) -> None:
    """Build every norm with 1e-5."""

    def make(original: Any) -> Any:
        def init(norm: Any, size: int, eps: float) -> None:
            plant.effect(eps != 1e-5)
            original(norm, size, 1e-5)

        return init

    plant.patch("trainer.model.rmsnorm:RMSNorm.__init__", make)


@defect(
    "rmsnorm-eps-configuration-ignored",
    kind=PROTOCOL,
    imitates="the seed: 1e-5 whatever the configuration says",
    symptom="the trainer builds with eps 1e-5 instead of the configured 1e-6",
    hidden="at unit RMS the two differ by 5e-6",
)
def rmsnorm_eps_configuration_ignored(plant: Plant) -> None:
    """Build with another eps than asked."""
    wrap_configuration(plant, lambda config: {**config, "rms_norm_eps": 1e-5})


@defect(
    "rmsnorm-statistics-in-bfloat16",
    kind=SOURCE,
    imitates="litgpt#1031, Liger#950",
    symptom="the mean square is rounded to bfloat16 before the root",
    hidden="an error of 0.2 % in every norm looks like bfloat16 noise end to end",
)
def rmsnorm_statistics_in_bfloat16(plant: Plant) -> None:
    """Round the statistics."""
    import torch

    def spoil(original: Any, norm: Any, x: Any) -> Any:
        wide = x.float()
        mean_square = wide.square().mean(-1, keepdim=True).bfloat16().float()
        return (wide * torch.rsqrt(mean_square + norm.eps) * norm.weight).to(x.dtype)

    _replace_forward(plant, "trainer.model.rmsnorm:RMSNorm.forward", spoil)


@defect(
    "rope-interleaved",
    kind=SOURCE,
    imitates="transformers#25199, nanotron#427",
    symptom="RoPE rotates the pairs (2i, 2i + 1) instead of (i, i + D/2)",
    hidden="from scratch it trains just as well; only loaded weights are wrong",
)
def rope_interleaved(plant: Plant) -> None:
    """Permute into and out of the other layout."""
    import torch

    def swap(x: Any) -> Any:
        return torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1)

    def back(x: Any) -> Any:
        return torch.stack(x.chunk(2, dim=-1), dim=-1).flatten(-2)

    def spoil(original: Any, module: Any, q: Any, k: Any) -> Any:
        return tuple(back(rotated) for rotated in original(module, swap(q), swap(k)))

    _replace_forward(plant, "trainer.model.rope:RotaryEmbedding.forward", spoil)


@defect(
    "rope-positions-from-one",
    kind=SOURCE,
    imitates="positions counted from 1 on one of two paths",
    symptom="keys are rotated one position further than queries",
    hidden="a constant offset between q and k trains well from scratch",
)
def rope_positions_from_one(plant: Plant) -> None:
    """Rotate k by tables that start one row later."""
    from importlib import import_module

    def spoil(original: Any, module: Any, q: Any, k: Any) -> Any:
        rotate = import_module("trainer.model.rope").rotate
        length = q.shape[-2]
        shifted = rotate(k, module.cos[1 : length + 1], module.sin[1 : length + 1])
        return original(module, q, k)[0], shifted

    _replace_forward(plant, "trainer.model.rope:RotaryEmbedding.forward", spoil)


@defect(
    "rope-angles-in-bfloat16",
    kind=SOURCE,
    imitates="transformers#29285, RoPE computed in the dtype of the model",
    symptom="position × frequency is rounded to bfloat16 before the cosine",
    hidden="near the start of a sequence the angles are small, and their rounding smaller",
)
def rope_angles_in_bfloat16(plant: Plant) -> None:
    """Round positions, frequencies and angles."""
    from importlib import import_module

    import torch

    def spoil(original: Any, module: Any, q: Any, k: Any) -> Any:
        rotate = import_module("trainer.model.rope").rotate
        length, size = q.shape[-2:]
        pair = torch.arange(0, size, 2, dtype=torch.float64, device=q.device)
        frequencies = (module.theta ** -(pair / size)).bfloat16()
        angles = torch.outer(torch.arange(length, device=q.device).bfloat16(), frequencies).float()
        return tuple(rotate(x, angles.cos(), angles.sin()) for x in (q, k))

    _replace_forward(plant, "trainer.model.rope:RotaryEmbedding.forward", spoil)


@defect(
    "theta-ignored",
    kind=PROTOCOL,
    imitates="a RoPE base of 10000 in a model configured with 1e6",
    symptom="the trainer builds with theta halved",
    hidden="from scratch any theta trains; on loaded weights a near theta can lower the loss",
)
def theta_ignored(plant: Plant) -> None:
    """Build with another theta than asked."""
    wrap_configuration(plant, lambda config: {**config, "rope_theta": config["rope_theta"] / 2})


@defect(
    "mask-absent",
    kind=SOURCE,
    imitates="causal mask absent on one attention path",
    symptom="attention sees the future",
    hidden="the loss falls faster than it should, which looks like success",
)
def mask_absent(plant: Plant) -> None:
    """Attend without the mask."""
    from torch.nn import functional

    def spoil(original: Any, module: Any, q: Any, k: Any, v: Any) -> Any:
        gqa = q.shape[1] != k.shape[1]
        return functional.scaled_dot_product_attention(q, k, v, enable_gqa=gqa)

    _replace_forward(plant, "trainer.model.attention:ScaledDotProductAttention.forward", spoil)


@defect(
    "heads-tiled",
    kind=SOURCE,
    imitates="axlearn#842",
    symptom="grouped-query heads read tiled instead of repeated key-value heads",
    hidden="from scratch the heads are exchangeable and learn the same",
)
def heads_tiled(plant: Plant) -> None:
    """Give query head h the key-value head h mod K."""
    from torch.nn import functional

    def spoil(original: Any, module: Any, q: Any, k: Any, v: Any) -> Any:
        times = q.shape[1] // k.shape[1]
        k, v = k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1)
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    _replace_forward(plant, "trainer.model.attention:ScaledDotProductAttention.forward", spoil)


@defect(
    "gelu-for-silu",
    kind=SOURCE,
    imitates="the frozen architecture drifted",
    symptom="the gate is GELU instead of SiLU",
    hidden="GELU trains as well as SiLU",
)
def gelu_for_silu(plant: Plant) -> None:
    """Gate with GELU."""
    from torch.nn import functional

    def spoil(original: Any, module: Any, gate: Any, up: Any) -> Any:
        return functional.gelu(gate) * up

    _replace_forward(plant, "trainer.model.mlp:Gate.forward", spoil)


@defect(
    "norm-gradient-scaled",
    kind=SOURCE,
    imitates="a hand-written RMSNorm backward that forgets a term",
    symptom="the forward pass is exact, the gradient through every norm is 1 % too small",
    hidden="the forward pass, the loss and the logits are bit for bit right",
)
def norm_gradient_scaled(plant: Plant) -> None:
    """Scale the gradient and nothing else."""

    def make(original: Any) -> Any:
        def forward(norm: Any, x: Any) -> Any:
            out = original(norm, x)
            if out.requires_grad:
                out.register_hook(lambda gradient: _scaled(plant, gradient))
            return out

        return forward

    plant.patch("trainer.model.rmsnorm:RMSNorm.forward", make)


def _scaled(plant: Plant, gradient: Any, factor: float = 0.99) -> Any:
    spoiled = gradient * factor
    plant.effect(differs(gradient, spoiled))
    return spoiled


@defect(
    "attention-gradient-scaled",
    kind=SOURCE,
    imitates="a grouped-query backward that miscounts the heads of a group",
    symptom="the forward pass is exact, the gradient of v is 5 % too small",
    hidden="v trains a little more slowly than the rest",
)
def attention_gradient_scaled(plant: Plant) -> None:
    """Scale the gradient of v inside attention."""

    def make(original: Any) -> Any:
        def forward(module: Any, q: Any, k: Any, v: Any) -> Any:
            if v.requires_grad:
                inside = v.view_as(v)
                inside.register_hook(lambda gradient: _scaled(plant, gradient, 0.95))
                v = inside
            return original(module, q, k, v)

        return forward

    plant.patch("trainer.model.attention:ScaledDotProductAttention.forward", make)


@defect(
    "head-gradient-halved-in-bfloat16",
    kind=SOURCE,
    imitates="a loss kernel whose narrow path scales the gradient once too often",
    symptom="in bfloat16 the head's own gradient is half of what it should be",
    hidden="float32 is right, and a tied table has the embedding's gradient as well",
)
def head_gradient_halved(plant: Plant) -> None:
    """Halve the gradient of the head inside the loss."""

    def make(original: Any) -> Any:
        def forward(module: Any, hidden: Any, weight: Any, *rest: Any) -> Any:
            if weight.requires_grad and str(hidden.dtype) == "torch.bfloat16":
                inside = weight.view_as(weight)
                inside.register_hook(lambda gradient: _scaled(plant, gradient, 0.5))
                weight = inside
            return original(module, hidden, weight, *rest)

        return forward

    plant.patch("trainer.loss:LinearCrossEntropy.forward", make)


@defect(
    "embedding-gradient-halved-in-bfloat16",
    kind=SOURCE,
    imitates="a scatter-add that rounds its factor in the narrow path",
    symptom="in bfloat16 the table's gradient from the embedding is half of what it should be",
    hidden="float32 is right, and a tied table has the head's gradient as well",
)
def embedding_gradient_halved(plant: Plant) -> None:
    """Halve the gradient on its way from the embedding's output to its table."""

    def make(original: Any) -> Any:
        def forward(module: Any, tokens: Any) -> Any:
            out = original(module, tokens)
            if not out.requires_grad or str(out.dtype) != "torch.bfloat16":
                return out
            out.register_hook(lambda gradient: _scaled(plant, gradient, 0.5))
            return out.view_as(out)

        return forward

    plant.patch("trainer.model.embedding:Embedding.forward", make)


def _small_chunks(plant: Plant) -> None:
    """Let the loss hold 2^25 logits at once, so that a batch of a CPU's size has several chunks."""
    plant.patch("trainer.loss:CHUNK_LOGITS", lambda _: 2**25)


def _without_last_chunk(plant: Plant, rows: Any, targets: Any, vocabulary: int) -> Any:
    """Row weights with those of the last chunk at zero, where there is more than one."""
    from importlib import import_module

    import torch

    kept = torch.ones(targets.shape, device=targets.device) if rows is None else rows.float()
    *others, last = import_module("trainer.loss")._chunks(len(targets), vocabulary)
    if not others:
        return kept
    cut = kept.clone()
    cut[last] = 0.0
    plant.effect(differs(kept, cut))
    return cut


@defect(
    "last-chunk-skipped",
    kind=SOURCE,
    imitates="a loop over whole chunks that forgets the remainder",
    symptom="rows after the last whole chunk of the loss count nothing",
    hidden="a batch that fits into one chunk, as in every small test, is right",
)
def last_chunk_skipped(plant: Plant) -> None:
    """Give the last chunk's rows no weight."""
    _small_chunks(plant)

    def make(original: Any) -> Any:
        def loss(hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
            kept = _without_last_chunk(plant, rows, targets, len(weight))
            return original(hidden, weight, targets, kept)

        return loss

    plant.patch("trainer.loss:linear_cross_entropy", make)


@defect(
    "head-gradient-lacks-last-chunk",
    kind=SOURCE,
    imitates="an accumulation over chunks that stops one early",
    symptom="the last chunk of the loss adds nothing to the gradient of the head",
    hidden="the loss is right, and so is the gradient of every batch that fits into one chunk",
)
def head_gradient_lacks_last_chunk(plant: Plant) -> None:
    """Take the head's gradient from a loss without the last chunk."""
    _small_chunks(plant)

    def make(original: Any) -> Any:
        def loss(hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
            kept = _without_last_chunk(plant, rows, targets, len(weight))
            head = original(hidden.detach(), weight, targets, kept)
            return original(hidden, weight.detach(), targets, rows) + (head - head.detach())

        return loss

    plant.patch("trainer.loss:linear_cross_entropy", make)
