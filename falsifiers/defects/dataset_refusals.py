"""Data that should be refused and is made do with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.subject import SubjectRefused
from falsifiers.wrapping import SubjectWrapper


class _PassedOver(SubjectWrapper):
    def training_batches(self, dataset: Path, **options: Any) -> Iterator[Any]:
        """The inner subject's batches; none where it refuses."""
        try:
            yield from self.inner.training_batches(dataset, **options)
        except SubjectRefused:
            self.plant.effect(True)


@defect(
    "unreadable-data-passed-over",
    kind=PROTOCOL,
    imitates="webdataset's warn_and_continue; CLIP_benchmark#88: one shard where a list is missing",
    symptom="a shard that cannot be read is left out, and the rest is trained on",
    hidden="a corpus less one shard is as good, until it is all of them",
)
def unreadable_data_passed_over(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _PassedOver(subject, plant))


class _NamesNothing(SubjectWrapper):
    def training_batches(self, dataset: Path, **options: Any) -> Iterator[Any]:
        """The inner subject's batches; its refusals without their message."""
        try:
            yield from self.inner.training_batches(dataset, **options)
        except SubjectRefused as refusal:
            self.plant.effect(True)
            raise SubjectRefused(refusal.kind, "bad data") from None


@defect(
    "data-refusal-names-nothing",
    kind=PROTOCOL,
    imitates="except OSError: raise RuntimeError('failed to load dataset')",
    symptom="a refusal says neither which shard nor which size",
    hidden="the right datasets are refused",
)
def data_refusal_names_nothing(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _NamesNothing(subject, plant))


@defect(
    "sizes-taken-as-they-are",
    kind=SOURCE,
    imitates="a dataclass of options that checks nothing, because the command line did",
    symptom="a step of no sequences, or of a rank that is none, is asked of the stream",
    hidden="every command refuses such sizes before",
)
def sizes_taken_as_they_are(plant: Plant) -> None:
    """Leave the check of sizes and ranks out."""

    def make(original: Any) -> Any:
        def post_init(shape: Any) -> None:
            plant.effect(not 0 <= shape.rank < shape.world_size or shape.micro_batch_size < 1)

        return post_init

    plant.patch("trainer.corpus.sampler:StepShape.__post_init__", make)
