"""Does a run from initial weights end well, in time, and where the weights let it begin?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from falsifiers.finetune_runs import Finetuned

REHEARSAL = "rehearsal"


def falsify_command_ends_in_success(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """The command exits with 0, says OK, and logged every step that it was asked for."""
    from falsifiers.run_directory import RunRecord
    from falsifiers.tiny_runs import RUNS, tiny_run

    if case.run in RUNS:
        made = tiny_run(subject, case.run, configuration, case.device)
        run = RunRecord(subject.run_directory(made.folder))
        status, mode = run.outcome["status"], run.identity["mode"]
        code, planned = made.exit_code, RUNS[case.run].options["num-steps"]
        steps = [line.get("step") for line in run.log]
    else:
        from falsifiers.finetune_runs import real_run

        done = real_run(subject, assets(case.run))
        status, mode = done.status, "finetune"
        code, planned = done.exit_code, done.planned
        steps = [line.get("step") for line in done.log]
    measured(
        exit_code=code,
        status=status,
        mode=mode,
        planned=planned,
        lines=len(steps),
        out_of_order=sum(step != place for place, step in enumerate(steps)),
    )


def falsify_run_ends_in_time(
    subject: Subject,
    case: Case,
    measured: Measured,
    configuration: Configuration,
    assets: Assets,
    tmp_path: Path,
) -> None:
    """All steps were taken within the limit, and the speeds that they report fit the time."""
    run = _run(subject, case, configuration, assets, tmp_path)
    measured(
        wall_seconds=run.wall_seconds,
        loop_seconds=run.loop_seconds,
        step_seconds=sum(run.targets / line["tokens_per_sec"] for line in run.log),
        planned=run.planned,
        lines=len(run.log),
    )


def falsify_first_loss_is_below_guessing(
    subject: Subject,
    case: Case,
    measured: Measured,
    configuration: Configuration,
    assets: Assets,
    tmp_path: Path,
) -> None:
    """The loss of step 0 is well below that of guessing, and no later step reaches it again."""
    run = _run(subject, case, configuration, assets, tmp_path)
    losses = [line["train_loss"] for line in run.log]
    measured(first_step=run.log[0]["step"], first_loss=losses[0], worst_loss=max(losses))


def falsify_checkpoint_is_whole(
    subject: Subject,
    case: Case,
    measured: Measured,
    configuration: Configuration,
    assets: Assets,
    tmp_path: Path,
) -> None:
    """The last checkpoint begins with the magic and is a whole, finite state of this model."""
    from falsifiers.predictive_weights import untied
    from falsifiers.reference.model import parameter_shapes
    from falsifiers.run_directory import inspect

    run = _run(subject, case, configuration, assets, tmp_path)
    config = untied(configuration) if case.weights == REHEARSAL else configuration
    found = inspect(run.checkpoint)
    with run.checkpoint.open("rb") as file:
        magic = file.read(4)
    measured(
        magic=magic.hex(),
        whole=not found.fault,
        fault=found.fault,
        misshapen=len(set(found.shapes.items()) ^ set(parameter_shapes(config).items())),
        step=int(found.training.get("step", -1)),
        planned=run.planned,
    )


def falsify_held_out_loss_stays_low(
    subject: Subject,
    case: Case,
    measured: Measured,
    configuration: Configuration,
    assets: Assets,
    tmp_path: Path,
) -> None:
    """The held-out loss at the end is finite, and below every ceiling that a run has."""
    run = _run(subject, case, configuration, assets, tmp_path)
    measured(val_loss=run.val_loss, first_loss=run.log[0]["train_loss"])


def falsify_no_device_error_was_written(
    subject: Subject,
    case: Case,
    measured: Measured,
    configuration: Configuration,
    assets: Assets,
    tmp_path: Path,
) -> None:
    """Nothing that the run wrote speaks of an error of the device."""
    import re

    run = _run(subject, case, configuration, assets, tmp_path)
    lines = [line for line in run.words.splitlines() if line.strip()]
    found = [line for line in lines if re.search(_DEVICE_ERRORS, line, re.IGNORECASE)]
    measured(
        lines_read=len(lines),
        planned=run.planned,
        errors=len(found),
        first_error=found[0] if found else "",
        status=run.status,
    )


_DEVICE_ERRORS = (
    r"cuda error|cudaerror|cuda out of memory|cu(blas|dnn|sparse|solver)_status_(?!success)"
    r"|device-side assert|illegal memory access|uncorrectable ecc|xid \d+|nccl (error|warn)"
)


def _run(
    subject: Subject, case: Case, configuration: Configuration, assets: Assets, tmp_path: Path
) -> Finetuned:
    from falsifiers.finetune_runs import real_run, rehearsal

    if case.weights == REHEARSAL:
        return rehearsal(subject, configuration, case.device, "float32", case.seed, tmp_path)
    return real_run(subject, assets(case.weights))
