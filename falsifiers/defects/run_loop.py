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
