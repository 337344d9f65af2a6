"""The guard against NaN and Inf is off, late, incomplete or over-eager."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, wrap_instances

_GUARD = "trainer.trainer:PretrainTrainer._guard"
"""Reads loss and norm on the host, and raises."""
_USABLE = "trainer.gradients:is_usable"
"""Looks at them on the device, and keeps the optimizer from moving a weight."""


@defect(
    "nan-passed-on",
    kind=SOURCE,
    imitates="the seed: losses are 'finite by construction'",
    symptom="a NaN loss or gradient reaches the optimizer",
    hidden="it does not stay hidden, but the weights are gone when it shows",
)
def nan_passed_on(plant: Plant) -> None:
    """Take the guard out, on the host and on the device."""
    import torch

    def make(original: Any) -> Any:
        def guard(trainer: Any, loss: float, grad_norm: float, step: int) -> None:
            plant.effect(not (math.isfinite(loss) and math.isfinite(grad_norm)))

        return guard

    plant.patch(_GUARD, make)
    plant.patch(_USABLE, lambda _: lambda loss, norm: torch.ones_like(loss, dtype=torch.bool))
    _log_anything(plant)


@defect(
    "guard-reads-loss-only",
    kind=SOURCE,
    imitates="the seed's guard, which looked at the loss",
    symptom="a NaN gradient under a finite loss is stepped with",
    hidden="the loss of that very step is right",
)
def guard_reads_loss_only(plant: Plant) -> None:
    """Tell both guards that the norm is fine."""

    def make(original: Any) -> Any:
        def guard(trainer: Any, loss: float, grad_norm: float, step: int) -> None:
            plant.effect(not math.isfinite(grad_norm))
            original(trainer, loss, 1.0, step)

        return guard

    plant.patch(_GUARD, make)
    plant.patch(_USABLE, lambda original: lambda loss, norm: original(loss, loss))
    _log_anything(plant)


def _log_anything(plant: Plant) -> None:
    """Let the log take NaN, which strict JSON refuses: the second net under the guard."""

    def make(original: Any) -> Any:
        def write(log: Any, metrics: Any) -> None:
            log._file.write(json.dumps(asdict(metrics)) + "\n")
            log._file.flush()

        return write

    plant.patch("trainer.run.metrics:MetricsLog.write", make)


class _PoisonLogged(InstanceWrapper):
    """Logs the poisoned step, then aborts."""

    def run(self, *arguments: Any, **options: Any) -> Any:
        """The run with one line too many in its log."""
        result = self.inner.run(*arguments, **options)
        aborted = result.status == "NUMERICAL_INSTABILITY"
        self.plant.effect(aborted)
        if not aborted:
            return result
        poisoned = {**result.logged[-1], "train_loss": math.nan, "step": len(result.logged)}
        return replace(result, logged=[*result.logged, poisoned])


@defect(
    "nan-logged-first",
    kind=PROTOCOL,
    imitates="metrics written before the guard looks at them",
    symptom="the poisoned step stands in the log as a step that was taken",
    hidden="the run stops as it should; only its log lies",
)
def nan_logged_first(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _PoisonLogged)


@defect(
    "guard-rejects-large-norm",
    kind=SOURCE,
    imitates="a divergence limit mistaken for a NaN check",
    symptom="a finite gradient norm above 0.5 aborts the run",
    hidden="late in training norms are small and nothing happens",
)
def guard_rejects_large_norm(plant: Plant) -> None:
    """Abort on a finite norm."""

    def make(original: Any) -> Any:
        def guard(trainer: Any, loss: float, grad_norm: float, step: int) -> None:
            plant.effect(math.isfinite(grad_norm) and grad_norm > 0.5)
            original(trainer, loss, math.inf if grad_norm > 0.5 else grad_norm, step)

        return guard

    plant.patch(_GUARD, make)


class _LastStepLost(InstanceWrapper):
    """Runs one step fewer than asked and says nothing."""

    def run(self, batches: Any, *, steps: int, **options: Any) -> Any:
        """A run that is one step short."""
        self.plant.effect(True)
        return self.inner.run(batches, steps=steps - 1, **options)


@defect(
    "last-step-lost",
    kind=PROTOCOL,
    imitates="an off-by-one in the loop: range(1, steps)",
    symptom="the run ends one step early with status OK",
    hidden="one step of a hundred thousand changes no curve",
)
def last_step_lost(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _LastStepLost)


_STEP = "trainer.optimizer:AdamW.step"


@defect(
    "halted-step-decays",
    kind=SOURCE,
    imitates="a gradient scaler that skips the update after weight decay was already applied",
    symptom="a step that must not be taken shrinks the weights all the same",
    hidden="the run stops with the right status, one part in ten thousand off",
)
def halted_step_decays(plant: Plant) -> None:
    """Decay whenever the optimizer is told to do nothing."""
    import torch

    def make(original: Any) -> Any:
        def step(own: Any, coefficient: Any, halted: Any) -> None:
            original(own, coefficient, halted)
            stopped = bool(halted)
            plant.effect(stopped)
            with torch.no_grad():
                for group in own.param_groups if stopped else []:
                    for parameter in group["params"]:
                        parameter.mul_(1 - group["lr"] * group["weight_decay"])

        return step

    plant.patch(_STEP, make)


@defect(
    "halt-forgotten",
    kind=SOURCE,
    imitates="a found_inf flag that is cleared at the start of every step",
    symptom="the steps launched behind a poisoned one move the weights",
    hidden="the poisoned step itself is skipped, and the run stops with the right status",
)
def halt_forgotten(plant: Plant) -> None:
    """Let each step look at its own loss and norm only."""
    usable: list[Any] = []

    def note(original: Any) -> Any:
        def is_usable(loss: Any, norm: Any) -> Any:
            usable.append(original(loss, norm))
            return usable[-1]

        return is_usable

    def make(original: Any) -> Any:
        def step(own: Any, coefficient: Any, halted: Any) -> None:
            plant.effect(bool(halted & usable[-1]))
            original(own, coefficient, ~usable[-1])

        return step

    plant.patch(_USABLE, note)
    plant.patch(_STEP, make)


class _DecayedAfterAbort(InstanceWrapper):
    """Shrinks every matrix once a run was aborted."""

    def run(self, *arguments: Any, **options: Any) -> Any:
        """A right run that leaves other weights behind."""
        result = self.inner.run(*arguments, **options)
        aborted = result.status == "NUMERICAL_INSTABILITY"
        self.plant.effect(aborted)
        if aborted:
            weights = self.inner.parameters().items()
            self.inner.set_parameters({n: p * (1 - 3e-5) for n, p in weights if p.ndim == 2})
        return result


@defect(
    "weights-decayed-after-abort",
    kind=PROTOCOL,
    imitates="a gradient scaler that skips the update after weight decay was already applied",
    symptom="after an aborted run the matrices are smaller than at its last step",
    hidden="status and log are right, and the weights one part in thirty thousand off",
)
def weights_decayed_after_abort(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _DecayedAfterAbort)
