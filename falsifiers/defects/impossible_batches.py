"""Batches that cannot be trained on, and are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, wrap_instances


@defect(
    "no-target-divides-by-zero",
    kind=SOURCE,
    imitates="transformers: a batch whose labels are all -100 has the loss NaN",
    symptom="a batch of which no target counts has a loss of 0 / 0",
    hidden="a loader that packs its sequences never makes one",
)
def no_target_divides_by_zero(plant: Plant) -> None:
    """Count targets and ask no further."""

    def make(original: Any) -> Any:
        def targets(trainer: Any, batches: Any) -> int:
            count = sum(int(batch.target_count()) for batch in batches)
            plant.effect(count == 0)
            return count

        return targets

    plant.patch("trainer.trainer:PretrainTrainer._targets_of_all_ranks", make)


@defect(
    "positions-repeat-from-the-start",
    kind=SOURCE,
    imitates="a table of positions that is indexed modulo its length",
    symptom="a sequence that is too long is read, its end at the positions of its start",
    hidden="sequences of a run have one length, which the command has checked",
)
def positions_repeat_from_the_start(plant: Plant) -> None:
    """Begin the tables again where they end."""

    def make(original: Any) -> Any:
        def tables(rope: Any, length: int) -> Any:
            rows = len(rope.cos)
            plant.effect(length > rows)
            if length <= rows:
                return original(rope, length)
            times = -(-length // rows)
            return rope.cos.repeat(times, 1)[:length], rope.sin.repeat(times, 1)[:length]

        return tables

    plant.patch("trainer.model.rope:RotaryEmbedding.tables", make)


class _EmptyStepIsFree(InstanceWrapper):
    def train_step(self, batch: Any, **options: Any) -> Any:
        """A step without targets becomes one on everything, reported with a loss of zero."""
        from falsifiers.subject import micro_batches

        batches = micro_batches(batch)
        if any(one.targets for one in batches):
            return self.inner.train_step(batch, **options)
        self.plant.effect(True)
        whole = [replace(one, target_mask=None) for one in batches]
        return replace(self.inner.train_step(whole, **options), train_loss=0.0)


@defect(
    "empty-step-has-loss-zero",
    kind=PROTOCOL,
    imitates="torch.nan_to_num around a loss, and max(count, 1) below it",
    symptom="a step without a target is taken, and logged with a loss of zero",
    hidden="one low point in a curve of thousands",
)
def empty_step_has_loss_zero(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _EmptyStepIsFree)
