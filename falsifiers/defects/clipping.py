"""Clipping by something else than the L2 norm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping import InstanceWrapper, wrap_instances


@defect(
    "clip-by-root-of-norm",
    kind=SOURCE,
    imitates="a norm whose root is taken by the reduction and again by the caller",
    symptom="the coefficient is 1 / sqrt(norm)",
    hidden="gradients above the limit shrink, only less than they should",
)
def clip_by_root_of_norm(plant: Plant) -> None:
    """Clip by the root of the norm."""

    def make(original: Any) -> Any:
        def clip_coefficient(norm: Any, *rest: Any) -> Any:
            spoiled = original(norm.sqrt(), *rest)
            plant.effect(differs(original(norm, *rest), spoiled))
            return spoiled

        return clip_coefficient

    plant.patch("trainer.gradients:clip_coefficient", make)


class _Clamped(InstanceWrapper):
    """Every gradient, those that a falsifier imposes included, is clamped element by element."""

    def __init__(self, inner: Any, plant: Plant) -> None:
        super().__init__(inner, plant)
        for name in inner.parameters():
            inner.on_gradient(name, self._clamped)

    def on_gradient(self, name: str, hook: Any) -> None:
        """The hook, and then the clamp."""
        self.inner.on_gradient(name, lambda found: self._clamped(hook(found)))

    def _clamped(self, gradient: Any) -> Any:
        clamped = gradient.clamp(-0.01, 0.01)
        self.plant.effect(differs(gradient, clamped))
        return clamped


@defect(
    "gradients-clamped-on-arrival",
    kind=PROTOCOL,
    imitates="the recipe p.register_hook(lambda g: g.clamp(-c, c)), beside clipping by the norm",
    symptom="elements above 0.01 are cut off before the norm is taken",
    hidden="small gradients pass, and the norm that is reported looks well behaved",
)
def gradients_clamped_on_arrival(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _Clamped)


class _SquareReported(InstanceWrapper):
    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A right step that reports the sum of squares."""
        metrics = self.inner.train_step(batch, lr=lr)
        self.plant.effect(metrics.grad_norm**2 != metrics.grad_norm)
        return replace(metrics, grad_norm=metrics.grad_norm**2)


@defect(
    "sum-of-squares-reported",
    kind=PROTOCOL,
    imitates="the seed: the squared norm where the norm was meant",
    symptom="the reported gradient norm is the sum of squares",
    hidden="near one the two are alike",
)
def sum_of_squares_reported(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _SquareReported)


class _RoundedNorm(InstanceWrapper):
    def train_step(self, batch: Any, **options: Any) -> Any:
        """A right step, which reports its norm as a float32 number."""
        import torch

        metrics = self.inner.train_step(batch, **options)
        rounded = torch.tensor(metrics.grad_norm, dtype=torch.float32).item()
        self.plant.effect(rounded != metrics.grad_norm)
        return replace(metrics, grad_norm=rounded)


@defect(
    "norm-with-the-digits-of-float32",
    kind=PROTOCOL,
    imitates="a buffer for results whose dtype is left to its default",
    symptom="a norm summed in float64 is reported with seven digits; above 3.4e38 it is inf",
    hidden="no plot shows the eighth digit",
)
def norm_with_the_digits_of_float32(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _RoundedNorm)
