"""Does a loop that is stopped from outside say so, and how far it came?"""

from __future__ import annotations

from pathlib import Path

from falsifiers.fixtures import Case, Configuration, Measured, Subject


def falsify_an_interrupted_loop_says_so(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Ctrl-C before a step: the steps before it are logged, none after, and the status tells."""
    from falsifiers.inputs import random_batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    batches = [random_batch(configuration, 2, 8, case.seed + n) for n in range(case.steps)]

    def interrupt(step: int) -> None:
        if step == case.stopped_before:
            raise KeyboardInterrupt

    stopped = instance.run(
        batches, steps=case.steps, log=tmp_path / "stopped", before_step=interrupt
    )
    whole = instance.run(batches, steps=case.steps, log=tmp_path / "whole")
    measured(
        status=stopped.status,
        message=stopped.message,
        lines=len(stopped.logged),
        wrong_steps=sum(line["step"] != number for number, line in enumerate(stopped.logged)),
        status_of_a_whole_run=whole.status,
        lines_of_a_whole_run=len(whole.logged),
        trains=instance.training(),
    )


def falsify_a_step_that_is_not_finite_is_named(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """One gradient becomes NaN at a step: the message says at which, and what was not finite."""
    from falsifiers.inputs import random_batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    batches = [random_batch(configuration, 2, 8, case.seed + n) for n in range(case.steps)]
    begun = 0

    def count(step: int) -> None:
        nonlocal begun
        begun = step

    instance.on_gradient(
        "model.norm.weight", lambda g: g * (float("nan") if begun >= case.spoiled else 1.0)
    )
    result = instance.run(batches, steps=case.steps, log=tmp_path / "log", before_step=count)
    measured(status=result.status, message=result.message, lines=len(result.logged))
