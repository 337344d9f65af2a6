"""What becomes of the steps behind one that was not finite."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.subject import SubjectRefused
from falsifiers.wrapping import InstanceWrapper, wrap_instances


@defect(
    "step-behind-a-failed-one-is-reported",
    kind=SOURCE,
    imitates="a found_inf flag on the device that the host never reads",
    symptom="steps that the device skips are reported as taken, with loss and norm",
    hidden="both are finite, and right for the weights that no longer move",
)
def step_behind_a_failed_one_is_reported(plant: Plant) -> None:
    """Take each step with finite numbers for one that was taken."""

    def make(original: Any) -> Any:
        def check(trainer: Any, step: int, result: Any) -> None:
            plant.effect(not result.taken)
            original(trainer, step, replace(result, taken=True))

        return check

    plant.patch("trainer.trainer:PretrainTrainer._check", make)


@defect(
    "step-behind-a-failed-one-is-read",
    kind=SOURCE,
    imitates="a finally that reads what is in flight, whatever ended the loop",
    symptom="the message names the step behind the one that failed, and no value",
    hidden="the status is right, and the step that is named was not taken either",
)
def step_behind_a_failed_one_is_read(plant: Plant) -> None:
    """Keep what is in flight when it should be forgotten. There is nothing in flight on a CPU."""

    class Kept(deque[Any]):
        def clear(self) -> None:
            plant.effect(len(self) > 0)

    plant.patch("trainer.run.loop:deque", lambda _: Kept)


class _LastMetrics(InstanceWrapper):
    last: Any = None

    def train_step(self, batch: Any, **options: Any) -> Any:
        """The inner step's metrics; from the second refusal on, the last ones there were."""
        try:
            self.last = self.inner.train_step(batch, **options)
        except SubjectRefused:
            if not self.__dict__.get("failed"):
                self.failed = True
                raise
            self.plant.effect(True)
        return self.last


@defect(
    "failure-answered-with-the-last-metrics",
    kind=PROTOCOL,
    imitates="an except around a step, in a loop that logs what it has",
    symptom="behind a failed step the last good metrics are reported again and again",
    hidden="they are plausible, and repeat exactly only in their last digits",
)
def failure_answered_with_the_last_metrics(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _LastMetrics)


class _MovesOnRefusal(InstanceWrapper):
    def train_step(self, batch: Any, **options: Any) -> Any:
        """A step; one that is refused shrinks the final norm's weight by a thousandth."""
        try:
            return self.inner.train_step(batch, **options)
        except SubjectRefused:
            name = "model.norm.weight"
            self.inner.set_parameters({name: self.inner.parameters()[name] * 0.999})
            self.plant.effect(True)
            raise


@defect(
    "refused-step-moves-weights",
    kind=PROTOCOL,
    imitates="weight decay that is applied before the gradients are looked at",
    symptom="a step that was refused has moved a weight",
    hidden="it is refused, as it should be",
)
def refused_step_moves_weights(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _MovesOnRefusal)
