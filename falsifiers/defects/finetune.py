"""Fine-tuning runs that end wrongly, or say something else than what happened.

A run is either gone through in this process or read from its folder; a protocol defect of this file
spoils both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.edited_runs import (
    checkpoints,
    edit_json,
    edit_log,
    edit_runs,
    metadata_files,
    replace_bytes,
)
from falsifiers.wrapping import InstanceWrapper, wrap_instances

Lines = list[dict[str, Any]]
_MEASURED = "trainer.run.loop:measured"


def _spoil_log(plant: Plant, change: Callable[[Lines], Lines]) -> None:
    class Changed(InstanceWrapper):
        def run(self, *arguments: Any, **options: Any) -> Any:
            """The run with other lines in its log."""
            result = self.inner.run(*arguments, **options)
            lines = [dict(line) for line in result.logged]
            changed = change([dict(line) for line in lines])
            plant.effect(changed != lines)
            return replace(result, logged=changed)

    wrap_instances(plant, Changed)
    edit_runs(plant, edit_log(change))


@defect(
    "speed-in-tokens-per-millisecond",
    kind=PROTOCOL,
    imitates="a clock in milliseconds where seconds belong",
    symptom="a step's speed is a thousandth of what it was, so the steps alone fill hours",
    hidden="the unit stands nowhere in a plot",
)
def speed_in_tokens_per_millisecond(plant: Plant) -> None:
    """Divide each speed by a thousand."""
    _spoil_log(
        plant,
        lambda lines: [{**line, "tokens_per_sec": line["tokens_per_sec"] / 1000} for line in lines],
    )


@defect(
    "last-steps-given-up",
    kind=PROTOCOL,
    imitates="a job that is ended by its scheduler and reported as done",
    symptom="the run ends in time because its last quarter was left out",
    hidden="the status is OK and the curve looks whole",
)
def last_steps_given_up(plant: Plant) -> None:
    """Keep three quarters of the lines."""
    _spoil_log(plant, lambda lines: lines[: 3 * len(lines) // 4])


@defect(
    "speed-counts-sequences",
    kind=SOURCE,
    imitates="samples per second logged as tokens per second",
    symptom="a step's speed is that of its sequences, each of which has 32 targets",
    hidden="speeds of one set-up are compared with each other",
)
def speed_counts_sequences(plant: Plant) -> None:
    """Report a thirty-second of each speed."""

    def make(original: Any) -> Any:
        def measured(*arguments: Any) -> Any:
            metrics = original(*arguments)
            plant.effect(True)
            return replace(metrics, tokens_per_sec=metrics.tokens_per_sec / 32)

        return measured

    plant.patch(_MEASURED, make)


@defect(
    "first-loss-of-guessing",
    kind=PROTOCOL,
    imitates="the seed: --init given, random weights trained",
    symptom="the loss of step 0 is 9.2 and more, as that of a random model",
    hidden="from there it falls, as any loss does",
)
def first_loss_of_guessing(plant: Plant) -> None:
    """Put ln 10,000 into the first line."""

    def change(lines: Lines) -> Lines:
        return [{**lines[0], "train_loss": math.log(10_000)}, *lines[1:]]

    _spoil_log(plant, change)


def _spoil_checkpoint(plant: Plant, change: Callable[[bytearray], None]) -> None:
    class Spoiled(InstanceWrapper):
        def save_checkpoint(self, path: Path, provenance: Any) -> None:
            """A checkpoint with other bytes."""
            self.inner.save_checkpoint(path, provenance)
            content = bytearray(path.read_bytes())
            change(content)
            plant.effect(bytes(content) != path.read_bytes())
            path.write_bytes(content)

    wrap_instances(plant, Spoiled)
    edit_runs(plant, lambda run: replace_bytes(checkpoints(run)[-1], change))


@defect(
    "checkpoint-without-magic",
    kind=PROTOCOL,
    imitates="a writer that fills the header in last, and was stopped before",
    symptom="the first four bytes of the checkpoint are zero",
    hidden="size and name are right",
)
def checkpoint_without_magic(plant: Plant) -> None:
    """Clear the magic."""

    def clear(content: bytearray) -> None:
        content[:4] = bytes(4)

    _spoil_checkpoint(plant, clear)


@defect(
    "checkpoint-lacks-its-last-page",
    kind=PROTOCOL,
    imitates="a copy that was cut off at a page of the disk",
    symptom="the last 4096 bytes of the checkpoint are missing",
    hidden="the magic is right, and the file lists its tensors",
)
def checkpoint_lacks_its_last_page(plant: Plant) -> None:
    """Cut the end off."""

    def cut(content: bytearray) -> None:
        del content[-4096:]

    _spoil_checkpoint(plant, cut)


@defect(
    "checkpoint-magic-of-another-version",
    kind=SOURCE,
    imitates="a constant that was changed for the next format and went out with this one",
    symptom="checkpoints begin with APR3",
    hidden="whoever wrote the file can read it again",
)
def checkpoint_magic_of_another_version(plant: Plant) -> None:
    """Write another magic."""

    def make(original: Any) -> Any:
        plant.effect(original != b"APR3")
        return b"APR3"

    plant.patch("trainer.weights.apr_layout:MAGIC", make)


class _NothingScored(InstanceWrapper):
    def evaluate(self, batches: Any) -> float:
        """The mean over no tokens."""
        self.plant.effect(True)
        return math.nan


@defect(
    "held-out-loss-of-nothing",
    kind=PROTOCOL,
    imitates="the seed: an empty held-out set gives NaN",
    symptom="the last held-out loss is NaN",
    hidden="NaN is neither above nor below a limit, so no comparison stops the run",
)
def held_out_loss_of_nothing(plant: Plant) -> None:
    """Score no token; in a folder, let the last epoch say so."""
    wrap_instances(plant, _NothingScored)
    edit_runs(
        plant,
        lambda run: edit_json(
            metadata_files(run)[-1], lambda fields: fields.update(val_loss=math.nan)
        ),
    )


_FAULT = "CUDA error: an illegal memory access was encountered"


@defect(
    "device-error-caught-and-forgotten",
    kind=SOURCE,
    imitates="the seed: a failed write is printed and forgotten, here of the device",
    symptom="an error of the device is printed in the middle of the run, which goes on",
    hidden="the status is OK and the exit code 0",
)
def device_error_caught_and_forgotten(plant: Plant) -> None:
    """Print one after the fourth step, number 3."""
    import sys

    def make(original: Any) -> Any:
        def measured(*arguments: Any) -> Any:
            metrics = original(*arguments)
            if metrics.step == 3:
                plant.effect(True)
                print(f"warning: {_FAULT}; continuing", file=sys.stderr)
            return metrics

        return measured

    plant.patch(_MEASURED, make)


class _FaultInMessage(InstanceWrapper):
    def run(self, *arguments: Any, **options: Any) -> Any:
        """A run that ended well and mentions an error."""
        result = self.inner.run(*arguments, **options)
        self.plant.effect(True)
        return replace(result, message=f"{result.message} {_FAULT}")


@defect(
    "device-error-in-a-good-ending",
    kind=PROTOCOL,
    imitates="an asynchronous error that is raised by the call after the last step",
    symptom="the run's last message names an error of the device, and its status is OK",
    hidden="a script reads the status",
)
def device_error_in_a_good_ending(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _FaultInMessage)

    def edit(run: Path) -> None:
        edit_json(run / "outcome.json", lambda outcome: outcome.update(message=_FAULT))

    edit_runs(plant, edit)


@defect(
    "wall-seconds-of-two-hours",
    kind=PROTOCOL,
    imitates="a run on a card that something else keeps busy",
    symptom="the run took two hours",
    hidden="it ended well, only late",
)
def wall_seconds_of_two_hours(plant: Plant) -> None:
    """Let the outcome say so."""

    def edit(run: Path) -> None:
        content = json.loads((run / "outcome.json").read_text())
        (run / "outcome.json").write_text(json.dumps({**content, "wall_seconds": 7200.0}))

    edit_runs(plant, edit)
