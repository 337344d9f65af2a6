"""RMSNorms that are nearly one: eps in another place, other statistics, half a gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.defects.slopes import spoiled_by
from falsifiers.wrapping_operators import OperatorsWrapper, wrap_operators

_FORWARD = "trainer.model.rmsnorm:RMSNorm.forward"


class _EpsDropped(OperatorsWrapper):
    def rmsnorm(self, x: Any, weight: Any, *, eps: float) -> Any:
        """The norm without eps."""
        self.plant.effect(eps != 0.0)
        return self.inner.rmsnorm(x, weight, eps=0.0)


@defect(
    "rmsnorm-eps-dropped",
    kind=PROTOCOL,
    imitates="an eps that was taken for a safeguard only and left out",
    symptom="the mean square is divided by without anything added",
    hidden="no activation of a running model is all zeros, and at unit RMS eps is 1e-6 of it",
)
def rmsnorm_eps_dropped(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _EpsDropped)


class _InputClamped(OperatorsWrapper):
    def rmsnorm(self, x: Any, weight: Any, *, eps: float) -> Any:
        """The norm of what fits into float16."""
        clamped = x.clamp(-65504.0, 65504.0)
        self.plant.effect(differs(x, clamped))
        return self.inner.rmsnorm(clamped, weight, eps=eps)


@defect(
    "rmsnorm-input-clamped",
    kind=PROTOCOL,
    imitates="the clamp of hidden states that T5 needs in float16, left on in every dtype",
    symptom="numbers beyond the largest of float16 are cut off before the norm",
    hidden="only outlier features grow so large, and late in training",
)
def rmsnorm_input_clamped(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _InputClamped)


class _WeightPlusOne(OperatorsWrapper):
    def rmsnorm(self, x: Any, weight: Any, *, eps: float) -> Any:
        """The norm with Gemma's scale."""
        self.plant.effect(x.numel() > 0)
        return self.inner.rmsnorm(x, weight + 1.0, eps=eps)


@defect(
    "rmsnorm-weight-plus-one",
    kind=PROTOCOL,
    imitates="Gemma's norm, which scales by 1 + weight, on a model that does not",
    symptom="the output is scaled by 1 + weight",
    hidden="from scratch the weights learn to be one smaller",
)
def rmsnorm_weight_plus_one(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _WeightPlusOne)


class _WeightNarrow(OperatorsWrapper):
    def rmsnorm(self, x: Any, weight: Any, *, eps: float) -> Any:
        """The norm with its weight rounded."""
        rounded = weight + (weight.bfloat16().float() - weight).detach()
        self.plant.effect(differs(weight, rounded))
        return self.inner.rmsnorm(x, rounded, eps=eps)


@defect(
    "rmsnorm-weight-in-bfloat16",
    kind=PROTOCOL,
    imitates="litgpt#1031, Liger#950: the cast before the weight instead of after it",
    symptom="the weight is rounded to bfloat16 before it is multiplied",
    hidden="a weight of exactly one, as at the start, is not changed by it",
)
def rmsnorm_weight_in_bfloat16(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _WeightNarrow)


def _with_inverse(plant: Plant, inverse_rms: Callable[[Any, float], Any]) -> None:
    """Let the norm multiply by ``inverse_rms(x, eps)``, ``[..., 1]``, of x in float32."""

    def make(original: Any) -> Any:
        def forward(norm: Any, x: Any) -> Any:
            def spoil(x: Any) -> Any:
                wide = x.float()
                return (wide * inverse_rms(wide, norm.eps) * norm.weight).to(x.dtype)

            return spoiled_by(plant, partial(original, norm), spoil, x)

        return forward

    plant.patch(_FORWARD, make)


@defect(
    "rmsnorm-eps-outside-root",
    kind=SOURCE,
    imitates="x / (rms + eps), as the first RMSNorm code had it, for weights of the other kind",
    symptom="eps is added to the root instead of to the mean square",
    hidden="at unit RMS the two differ by less than 1e-6",
)
def rmsnorm_eps_outside_root(plant: Plant) -> None:
    """Take the root, then add."""
    _with_inverse(plant, lambda x, eps: 1.0 / (x.square().mean(-1, keepdim=True).sqrt() + eps))


@defect(
    "rmsnorm-variance-unbiased",
    kind=SOURCE,
    imitates="torch.var, which divides by C - 1 unless told otherwise",
    symptom="the sum of squares is divided by one less than the width",
    hidden="at a width of 1024 every output is 0.05 % smaller, which the next weight absorbs",
)
def rmsnorm_variance_unbiased(plant: Plant) -> None:
    """Divide by C - 1."""

    def inverse_rms(x: Any, eps: float) -> Any:
        total = x.square().sum(-1, keepdim=True)
        return (total / max(x.shape[-1] - 1, 1) + eps).rsqrt()

    _with_inverse(plant, inverse_rms)


@defect(
    "rmsnorm-tail-unsummed",
    kind=SOURCE,
    imitates="a vectorised sum that works on eight columns at a time and forgets the rest",
    symptom="the last columns of a width that eight does not divide are not in the mean square",
    hidden="every width of a real model is a multiple of eight",
)
def rmsnorm_tail_unsummed(plant: Plant) -> None:
    """Sum the squares of whole blocks of eight."""

    def inverse_rms(x: Any, eps: float) -> Any:
        width = x.shape[-1]
        whole = width // 8 * 8 or width
        return (x[..., :whole].square().sum(-1, keepdim=True) / width + eps).rsqrt()

    _with_inverse(plant, inverse_rms)


@defect(
    "rmsnorm-statistics-detached",
    kind=SOURCE,
    imitates="a hand-written RMSNorm backward without the term through the mean square",
    symptom="the gradient of the input is that of a constant scale",
    hidden="the forward pass is bit for bit right, and the gradient's direction nearly so",
)
def rmsnorm_statistics_detached(plant: Plant) -> None:
    """Keep the gradient out of the statistics."""

    def make(original: Any) -> Any:
        def forward(norm: Any, x: Any) -> Any:
            wide = x.float()
            scale = (wide.square().mean(-1, keepdim=True) + norm.eps).rsqrt().detach()
            out = (wide * scale * norm.weight).to(x.dtype)
            plant.effect(x.requires_grad and x.numel() > 0)
            return out

        return forward

    plant.patch(_FORWARD, make)
