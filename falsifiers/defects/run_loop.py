"""Loops that do not say how they ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, wrap_instances


class _SaysOk(InstanceWrapper):
    def run(self, batches: Any, **options: Any) -> Any:
        """The same run; one that was interrupted is reported as finished."""
        result = self.inner.run(batches, **options)
        self.plant.effect(result.status != "OK")
        return replace(result, status="OK", message="")


@defect(
    "interrupted-run-says-ok",
    kind=PROTOCOL,
    imitates="except KeyboardInterrupt: pass, around a training loop",
    symptom="a run that was stopped half-way counts as finished",
    hidden="its log is whole and its last loss is good",
)
def interrupted_run_says_ok(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _SaysOk)


@defect(
    "interrupt-ends-the-caller",
    kind=SOURCE,
    imitates="a loop that catches Exception, which KeyboardInterrupt is not",
    symptom="Ctrl-C goes through the loop and takes with it whoever called it",
    hidden="the log is closed all the same, and a terminal shows nothing unusual",
)
def interrupt_ends_the_caller(plant: Plant) -> None:
    """Report what was caught as a failure, as the caller that it ended would."""

    def make(original: Any) -> Any:
        def run_steps(*arguments: Any, **options: Any) -> Any:
            outcome = original(*arguments, **options)
            if outcome.status == "INTERRUPTED":
                plant.effect(True)
                return replace(outcome, status="FAILED", message="KeyboardInterrupt")
            return outcome

        return run_steps

    plant.patch("trainer.run.loop:run_steps", make)


@defect(
    "loop-in-evaluation-mode",
    kind=SOURCE,
    imitates="a model.eval() of a sample in mid-training that nobody takes back",
    symptom="steps are taken in evaluation mode",
    hidden="without dropout both modes compute the same; the first layer that asks is wrong",
)
def loop_in_evaluation_mode(plant: Plant) -> None:
    """Leave training mode with each step."""

    def make(original: Any) -> Any:
        def launch_step(trainer: Any, *arguments: Any, **options: Any) -> Any:
            pending = original(trainer, *arguments, **options)
            trainer.model.eval()
            plant.effect(True)
            return pending

        return launch_step

    plant.patch("trainer.trainer:PretrainTrainer.launch_step", make)


@defect(
    "not-finite-blamed-on-the-step-before",
    kind=SOURCE,
    imitates="one message for every way in which a step can fail",
    symptom="a NaN is reported without its value, as if it came from an earlier step",
    hidden="the run stops as it should, and only its reader looks in the wrong place",
)
def not_finite_blamed_on_the_step_before(plant: Plant) -> None:
    """Leave out the check that tells the values."""

    def make(original: Any) -> Any:
        def guard(trainer: Any, loss: float, grad_norm: float, step: int) -> None:
            plant.effect(loss - loss != 0 or grad_norm - grad_norm != 0)

        return guard

    plant.patch("trainer.trainer:PretrainTrainer._guard", make)


class _NamesNoStep(InstanceWrapper):
    def run(self, batches: Any, **options: Any) -> Any:
        """The same run; the message of an abort is its status."""
        result = self.inner.run(batches, **options)
        self.plant.effect(result.status != "OK")
        return replace(result, message=result.status)


@defect(
    "abort-without-its-step",
    kind=PROTOCOL,
    imitates="RuntimeError: loss is NaN",
    symptom="a run that aborts says neither where nor on which value",
    hidden="the exit code is right",
)
def abort_without_its_step(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _NamesNoStep)
