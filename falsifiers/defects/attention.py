"""Attention that is not quite a causal, scaled, weighted mean, forward or backward."""

from __future__ import annotations

import math
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping_operators import OperatorsWrapper, wrap_operators

_FORWARD = "trainer.model.attention:ScaledDotProductAttention.forward"


def _spoil_inputs(plant: Plant, spoil: Any) -> None:
    """Give the module ``spoil(q, k, v)`` instead of its inputs."""

    def make(original: Any) -> Any:
        def forward(module: Any, *inputs: Any) -> Any:
            clean, spoiled = original(module, *inputs), original(module, *spoil(*inputs))
            plant.effect(differs(clean, spoiled))
            return spoiled

        return forward

    plant.patch(_FORWARD, make)


@defect(
    "values-of-partial-block-lost",
    kind=SOURCE,
    imitates="a kernel that walks whole blocks of 128 keys and masks the remainder away",
    symptom="values from the last whole block of 128 on count as zero, their weights do not",
    hidden="training lengths are multiples of 128, and shorter ones fit into one block",
)
def values_of_partial_block_lost(plant: Plant) -> None:
    """Zero the values after the last whole block, where there is one."""

    def spoil(q: Any, k: Any, v: Any) -> Any:
        whole = v.shape[2] // 128 * 128 or v.shape[2]
        kept = v.clone()
        kept[:, :, whole:] = 0.0
        return q, k, kept

    _spoil_inputs(plant, spoil)


@defect(
    "attention-scale-of-padded-head",
    kind=SOURCE,
    imitates="a kernel that pads heads to a multiple of 16 and takes the root of the padded size",
    symptom="logits are divided by the root of a larger head size",
    hidden="heads of 64 and 128 need no padding, and softmax learns around a temperature",
)
def attention_scale_of_padded_head(plant: Plant) -> None:
    """Shrink q accordingly."""

    def spoil(q: Any, k: Any, v: Any) -> Any:
        size = q.shape[-1]
        return q * math.sqrt(size / (-(-size // 16) * 16)), k, v

    _spoil_inputs(plant, spoil)


@defect(
    "attention-dropout-left-on",
    kind=SOURCE,
    imitates="dropout_p passed whatever the mode, as functional attention has no mode",
    symptom="a tenth of the weights is dropped and the rest scaled up",
    hidden="dropout is a respected regulariser: training only looks a little slower",
)
def attention_dropout_left_on(plant: Plant) -> None:
    """Drop weights."""
    from torch.nn import functional

    def make(original: Any) -> Any:
        def forward(module: Any, q: Any, k: Any, v: Any) -> Any:
            gqa = q.shape[1] != k.shape[1]
            spoiled = functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=gqa, dropout_p=0.1
            )
            plant.effect(differs(original(module, q, k, v), spoiled))
            return spoiled

        return forward

    plant.patch(_FORWARD, make)


def _attend(q: Any, k: Any, v: Any, *, ahead: int = 0, future: float = -math.inf) -> Any:
    """Written-out attention that sees `ahead` tokens too many; `future` is added to the others."""
    import torch

    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
    above = torch.ones(scores.shape[-2:], device=q.device).triu(diagonal=1 + ahead).bool()
    bias = torch.zeros_like(scores).masked_fill(above, future)
    return (scores + bias).softmax(-1).to(q.dtype) @ v


@defect(
    "mask-adds-ten-thousand",
    kind=SOURCE,
    imitates="GPT-2's masked_bias of -1e4, added instead of filled in",
    symptom="a future key whose logit is larger by more than 1e4 is seen",
    hidden="logits of healthy models are far smaller, and the weight is then exactly zero",
)
def mask_adds_ten_thousand(plant: Plant) -> None:
    """Mask by a finite bias."""

    def make(original: Any) -> Any:
        def forward(module: Any, q: Any, k: Any, v: Any) -> Any:
            spoiled = _attend(q, k, v, future=-1e4)
            plant.effect(differs(original(module, q, k, v), spoiled))
            return spoiled

        return forward

    plant.patch(_FORWARD, make)


class _MaskLate(OperatorsWrapper):
    def attention(self, q: Any, k: Any, v: Any) -> Any:
        """Attention that sees one token ahead."""
        spoiled = _attend(q, k, v, ahead=1)
        self.plant.effect(differs(self.inner.attention(q, k, v), spoiled))
        return spoiled


@defect(
    "mask-one-token-late",
    kind=PROTOCOL,
    imitates="a causal mask made by triu(diagonal=2) for triu(diagonal=1)",
    symptom="each token sees the one after it, which is its target",
    hidden="the loss falls faster than it should, which looks like success",
)
def mask_one_token_late(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _MaskLate)


class _Sink(OperatorsWrapper):
    def attention(self, q: Any, k: Any, v: Any) -> Any:
        """Attention whose softmax has one in the denominator that belongs to no key."""
        import torch

        group = q.shape[1] // k.shape[1]
        keys = k.repeat_interleave(group, dim=1)
        scores = (q @ keys.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
        above = torch.ones(scores.shape[-2:], device=q.device).triu(diagonal=1).bool()
        normaliser = scores.masked_fill(above, -math.inf).logsumexp(-1, keepdim=True)
        clean = self.inner.attention(q, k, v)
        spoiled = clean * torch.sigmoid(normaliser).to(clean.dtype)
        self.plant.effect(differs(clean, spoiled))
        return spoiled


@defect(
    "softmax-with-one-more",
    kind=PROTOCOL,
    imitates="'softmax off by one': exp(x) / (1 + sum exp(x)), as some kernels offer it",
    symptom="rows sum to less than one, the first ones most",
    hidden="such models train as well; only weights made for the other softmax suffer",
)
def softmax_with_one_more(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _Sink)


class _RoundedScale(OperatorsWrapper):
    def attention(self, q: Any, k: Any, v: Any) -> Any:
        """Attention with its scale rounded to bfloat16."""
        import torch

        exact = 1.0 / math.sqrt(q.shape[-1])
        rounded = torch.tensor(exact).bfloat16().item()
        spoiled = self.inner.attention(q * (rounded / exact), k, v)
        self.plant.effect(differs(self.inner.attention(q, k, v), spoiled))
        return spoiled


@defect(
    "attention-scale-in-bfloat16",
    kind=PROTOCOL,
    imitates="a scale made as a tensor of the model's dtype",
    symptom="1/√D is off by up to 0.2 %",
    hidden="for head sizes of 16, 64 and 256 it is exact",
)
def attention_scale_in_bfloat16(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _RoundedScale)


def _scale_gradient(plant: Plant, tensor: Any, factor: Any) -> Any:
    """The same tensor, whose gradient is multiplied by `factor`, a number or a tensor."""
    if not tensor.requires_grad:
        return tensor
    inside = tensor.view_as(tensor)

    def spoil(gradient: Any) -> Any:
        spoiled = gradient * factor
        plant.effect(differs(gradient, spoiled))
        return spoiled

    inside.register_hook(spoil)
    return inside


class _UnscaledKeyGradient(OperatorsWrapper):
    def attention(self, q: Any, k: Any, v: Any) -> Any:
        """Attention whose gradient of k lacks 2 %, as if its scale were another."""
        return self.inner.attention(q, _scale_gradient(self.plant, k, 0.98), v)


@defect(
    "key-gradient-scaled",
    kind=PROTOCOL,
    imitates="a backward kernel with a scale of its own for one of two products",
    symptom="the forward pass is exact, the gradient of k is 2 % too small",
    hidden="k trains a little more slowly than the rest",
)
def key_gradient_scaled(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _UnscaledKeyGradient)


@defect(
    "block-mask-one-token-late",
    kind=SOURCE,
    imitates="a block mask for compiled attention whose function compares with the next position",
    symptom="in deterministic mode alone, each token sees the one after it",
    hidden="operators are tested as they run by default, which takes no block mask",
)
def block_mask_one_token_late(plant: Plant) -> None:
    """Make the mask of compiled, deterministic attention anew, one diagonal further."""
    from torch.nn.attention.flex_attention import create_block_mask

    def sees_the_next(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return query + 1 >= key

    def make(original: Any) -> Any:
        def prepare(module: Any, length: int, device: Any) -> None:
            original(module, length, device)
            if module._mask is not None:
                module._mask = create_block_mask(
                    sees_the_next, None, None, length, length, device=device
                )
                plant.effect(True)

        return prepare

    plant.patch("trainer.model.flex_attention:FlexCausalAttention.prepare", make)
