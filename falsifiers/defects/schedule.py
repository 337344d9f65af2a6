"""Schedules that are one step off, or end elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import SubjectWrapper

_CALL = "trainer.schedule:WarmupCosine.__call__"


def _replace_rate(plant: Plant, spoil: Callable[[Callable[[int], float], Any, int], float]) -> None:
    """``spoil(clean, schedule, step)`` instead of the rate."""

    def make(original: Any) -> Any:
        def rate(schedule: Any, step: int) -> float:
            spoiled = spoil(lambda s: float(original(schedule, s)), schedule, step)
            plant.effect(spoiled != original(schedule, step))
            return spoiled

        return rate

    plant.patch(_CALL, make)


@defect(
    "warm-up-from-one",
    kind=SOURCE,
    imitates="torchtitan#1261: a warm-up that counts from 1",
    symptom="step s of the warm-up has the rate of step s + 1",
    hidden="the first step moves a little, and the curves lie on each other",
)
def warm_up_from_one(plant: Plant) -> None:
    """Look one step ahead within the warm-up."""
    _replace_rate(
        plant, lambda clean, own, step: clean(step + 1 if step < own.warmup_steps else step)
    )


@defect(
    "decay-over-all-steps",
    kind=SOURCE,
    imitates="torchtitan#1010: a cosine over the whole run, warm-up included",
    symptom="the cosine is already under way when the warm-up ends, so the peak is never reached",
    hidden="with a short warm-up the two are nearly the same",
)
def decay_over_all_steps(plant: Plant) -> None:
    """Count the cosine from step 0."""
    import math

    def spoil(clean: Callable[[int], float], own: Any, step: int) -> float:
        if step < own.warmup_steps:
            return clean(step)
        return float(own.lr_max * 0.5 * (1 + math.cos(math.pi * step / own.total_steps)))

    _replace_rate(plant, spoil)


class _DecayEndsEarly(SubjectWrapper):
    def learning_rate(self, step: int, *, peak: float, warm_up: int, total: int) -> float:
        """The rate of a run that is one step shorter, wherever there is such a run."""
        shorter = max(warm_up, total - 1)
        clean = self.inner.learning_rate(step, peak=peak, warm_up=warm_up, total=total)
        rate: float = self.inner.learning_rate(
            min(step, shorter), peak=peak, warm_up=warm_up, total=shorter
        )
        self.plant.effect(rate != clean)
        return rate


@defect(
    "decay-ends-one-step-early",
    kind=PROTOCOL,
    imitates="steps counted from 0 against a total that was counted from 1",
    symptom="the cosine ends at the last planned step, which then moves nothing",
    hidden="the last rates are next to nothing anyway",
)
def decay_ends_one_step_early(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _DecayEndsEarly(subject, plant))


class _NextStep(SubjectWrapper):
    def learning_rate(self, step: int, *, peak: float, warm_up: int, total: int) -> float:
        """The rate of the step after."""
        self.plant.effect(True)
        later = min(step + 1, total)
        rate: float = self.inner.learning_rate(later, peak=peak, warm_up=warm_up, total=total)
        return rate


@defect(
    "scheduler-stepped-first",
    kind=PROTOCOL,
    imitates="scheduler.step() called before optimizer.step()",
    symptom="every step has the rate of the next one, and the peak comes a step early",
    hidden="neighbouring rates are nearly equal",
)
def scheduler_stepped_first(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _NextStep(subject, plant))


class _WarmUpCut(SubjectWrapper):
    def learning_rate(self, step: int, *, peak: float, warm_up: int, total: int) -> float:
        """The rate with a warm-up that is cut to the run."""
        self.plant.effect(warm_up > total)
        cut = min(warm_up, total)
        rate: float = self.inner.learning_rate(step, peak=peak, warm_up=cut, total=total)
        return rate


@defect(
    "warm-up-silently-cut",
    kind=PROTOCOL,
    imitates="min(warm_up, total) in the name of kindness",
    symptom="a warm-up longer than the run is shortened without a word",
    hidden="the run that was asked for cannot be had anyway",
)
def warm_up_silently_cut(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _WarmUpCut(subject, plant))


@defect(
    "warm-up-has-to-be-shorter",
    kind=SOURCE,
    imitates="a check with < where <= was meant",
    symptom="a warm-up as long as the run is refused",
    hidden="nobody plans such a run but to try a warm-up out",
)
def warm_up_has_to_be_shorter(plant: Plant) -> None:
    """Refuse equality."""
    from importlib import import_module

    errors: Any = import_module("trainer.errors")

    def make(original: Any) -> Any:
        def check(own: Any) -> None:
            original(own)
            plant.effect(own.warmup_steps == own.total_steps)
            if own.warmup_steps == own.total_steps:
                raise errors.ConfigurationError("the warm-up has to be shorter than the run")

        return check

    plant.patch("trainer.schedule:WarmupCosine.__post_init__", make)
