"""Steps that are almost AdamW, and rates that are almost the one asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping import InstanceWrapper, wrap_instances

_BUILD = "trainer.optimizer:build_optimizer"


def _change_groups(plant: Plant, change: Callable[[dict[str, Any]], None]) -> None:
    """Let `change` edit each parameter group of the optimizer as it is built."""

    def make(original: Any) -> Any:
        def build_optimizer(model: Any, lr: float) -> Any:
            optimizer = original(model, lr)
            for group in optimizer.param_groups:
                before = {k: v for k, v in group.items() if k != "params"}
                change(group)
                plant.effect(any(group[k] != v for k, v in before.items()))
            return optimizer

        return build_optimizer

    plant.patch(_BUILD, make)


@defect(
    "beta2-999",
    kind=SOURCE,
    imitates="torch's default where the configuration says 0.95",
    symptom="the second moment averages over a thousand steps instead of twenty",
    hidden="the loss curve is as smooth, and only slower after a change of regime",
)
def beta2_999(plant: Plant) -> None:
    """Take torch's default."""
    _change_groups(plant, lambda group: group.update(betas=(0.9, 0.999)))


@defect(
    "decay-on-norms",
    kind=SOURCE,
    imitates="transformers#35927",
    symptom="norm weights decay towards zero",
    hidden="the pull is a ten-thousandth a step, and the loss compensates",
)
def decay_on_norms(plant: Plant) -> None:
    """Decay every group."""
    _change_groups(plant, lambda group: group.update(weight_decay=0.1))


@defect(
    "decay-dropped",
    kind=SOURCE,
    imitates="a weight_decay argument that no group receives",
    symptom="no parameter is decayed by the optimizer",
    hidden="early in training decay hardly matters to the loss",
)
def decay_dropped(plant: Plant) -> None:
    """Decay no group."""
    _change_groups(plant, lambda group: group.update(weight_decay=0.0))


@defect(
    "bias-correction-frozen",
    kind=SOURCE,
    imitates="a step count that is not advanced or not restored",
    symptom="every step is corrected as if it were the first",
    hidden="updates are a few times too small, as if the rate were lower",
)
def bias_correction_frozen(plant: Plant) -> None:
    """Set the step count back before every step."""

    def make(original: Any) -> Any:
        def build_optimizer(model: Any, lr: float) -> Any:
            optimizer = original(model, lr)

            def forget(own: Any, *_: Any) -> None:
                for state in own.state.values():
                    plant.effect(bool(state["step"] != 0))
                    state["step"].zero_()

            optimizer.register_step_pre_hook(forget)
            return optimizer

        return build_optimizer

    plant.patch(_BUILD, make)


def _replace_coefficient(plant: Plant, spoil: Callable[[Any, Any], Any]) -> None:
    """``spoil(original, norm)`` instead of the coefficient that gradients are multiplied by."""

    def make(original: Any) -> Any:
        def clip_coefficient(norm: Any, *rest: Any) -> Any:
            spoiled = spoil(original, norm)
            plant.effect(differs(original(norm, *rest), spoiled))
            return spoiled

        return clip_coefficient

    plant.patch("trainer.gradients:clip_coefficient", make)


@defect(
    "clip-by-square",
    kind=SOURCE,
    imitates="the seed: clips by the squared norm",
    symptom="the coefficient is 1 / norm² instead of 1 / norm",
    hidden="Adam divides most of a constant factor out again",
)
def clip_by_square(plant: Plant) -> None:
    """Clip by the square."""
    _replace_coefficient(plant, lambda original, norm: original(norm * norm))


@defect(
    "clip-missing",
    kind=SOURCE,
    imitates="a clip limit that is read and never applied",
    symptom="gradients are never clipped",
    hidden="Adam divides most of the norm out again, until one batch is an outlier",
)
def clip_missing(plant: Plant) -> None:
    """Leave the gradients as they are."""
    _replace_coefficient(plant, lambda original, norm: norm.new_ones(()))


@defect(
    "clip-per-tensor",
    kind=SOURCE,
    imitates="torchtitan#596, DeepSpeed#1801: clipped piece by piece instead of globally",
    symptom="each tensor is clipped by its own norm",
    hidden="directions change a little, and only in the steps that clip",
)
def clip_per_tensor(plant: Plant) -> None:
    """Clip each tensor alone, in place, and let the optimizer multiply by one."""
    from importlib import import_module

    gradients: Any = import_module("trainer.gradients")

    def make(original: Any) -> Any:
        def step(own: Any, coefficient: Any, halted: Any) -> None:
            for parameter in (p for group in own.param_groups for p in group["params"]):
                clean = parameter.grad * coefficient.float()
                alone = gradients.clip_coefficient(gradients.global_norm([parameter]))
                parameter.grad.mul_(alone.float())
                plant.effect(differs(clean, parameter.grad))
            original(own, coefficient.new_ones(()), halted)

        return step

    plant.patch("trainer.optimizer:AdamW.step", make)


class _RoundedToBfloat16(InstanceWrapper):
    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A right step whose weights are then stored in bfloat16."""
        metrics = self.inner.train_step(batch, lr=lr)
        clean = {n: p.clone() for n, p in self.inner.parameters().items()}
        spoiled = {n: p.bfloat16().float() for n, p in clean.items()}
        self.plant.effect(any(differs(clean[n], p) for n, p in spoiled.items()))
        self.inner.set_parameters(spoiled)
        return metrics


@defect(
    "weights-rounded-to-bfloat16",
    kind=PROTOCOL,
    imitates="no float32 master weights (AReaL#1369)",
    symptom="weights are rounded to bfloat16 after every step",
    hidden="at high rates updates survive the rounding; late in training they vanish",
)
def weights_rounded_to_bfloat16(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _RoundedToBfloat16)


class _RateLate(InstanceWrapper):
    previous: float | None = None

    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A step at the rate of the step before, reported as if it were the one asked for."""
        rate = lr if self.previous is None else self.previous
        self.plant.effect(rate != lr)
        self.previous = lr
        metrics = self.inner.train_step(batch, lr=rate)
        return metrics if lr is None else replace(metrics, lr=lr)


@defect(
    "rate-one-step-late",
    kind=PROTOCOL,
    imitates="a scheduler stepped after the optimizer has read its groups",
    symptom="each step is taken at the rate of the one before",
    hidden="the reported rate is right, and neighbouring rates are nearly equal",
)
def rate_one_step_late(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _RateLate)


class _RateReportedStale(InstanceWrapper):
    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A right step that reports the instance's first rate."""
        metrics = self.inner.train_step(batch, lr=lr)
        self.plant.effect(metrics.lr != 5e-3)
        return replace(metrics, lr=5e-3)


@defect(
    "rate-reported-stale",
    kind=PROTOCOL,
    imitates="a metric read from the configuration instead of from the optimizer",
    symptom="every step reports the same rate",
    hidden="training itself is right",
)
def rate_reported_stale(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _RateReportedStale)
