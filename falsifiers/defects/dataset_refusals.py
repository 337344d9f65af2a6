"""Data that should be refused and is made do with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.subject import SubjectRefused
from falsifiers.wrapping import SubjectWrapper


def _hashes_fit(dataset: Path) -> bool:
    """Whether the manifest names the hash of every shard as it is."""
    manifest = (dataset / "manifest.json").read_text()
    shards = (path.read_bytes() for path in dataset.glob("*.bin"))
    return all(hashlib.sha256(shard).hexdigest() in manifest for shard in shards)


class _TrustsHashes(SubjectWrapper):
    def require_whole_dataset(self, dataset: Path) -> None:
        """The inner subject's check; what it refuses although the hashes fit is taken."""
        try:
            self.inner.require_whole_dataset(dataset)
        except SubjectRefused:
            if not _hashes_fit(dataset):
                raise
            self.plant.effect(True)


@defect(
    "dataset-check-trusts-hashes",
    kind=PROTOCOL,
    imitates="a loader that takes a shard for right once its checksum is",
    symptom="ids beyond the vocabulary are trained on if they were there when the hash was taken",
    hidden="every dataset that this trainer prepared itself passes, and rightly",
)
def dataset_check_trusts_hashes(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _TrustsHashes(subject, plant))


class _ReadsNothing(SubjectWrapper):
    def require_whole_dataset(self, dataset: Path) -> None:
        """No check."""
        self.plant.effect(True)


@defect(
    "dataset-check-reads-nothing",
    kind=PROTOCOL,
    imitates="a verification that is skipped because it takes minutes",
    symptom="a shard with a flipped bit is trained on",
    hidden="sizes are looked at when the dataset is opened, and a bit changes no size",
)
def dataset_check_reads_nothing(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _ReadsNothing(subject, plant))


class _CheckNamesNothing(SubjectWrapper):
    def require_whole_dataset(self, dataset: Path) -> None:
        """The inner subject's check; its refusals name the dataset and not the shard."""
        try:
            self.inner.require_whole_dataset(dataset)
        except SubjectRefused as refusal:
            self.plant.effect(True)
            raise SubjectRefused(refusal.kind, f"{dataset}: it is damaged") from None


@defect(
    "dataset-check-names-nothing",
    kind=PROTOCOL,
    imitates="all(check(shard) for shard in shards)",
    symptom="a damaged dataset is refused, and not which shard",
    hidden="the right datasets are refused",
)
def dataset_check_names_nothing(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _CheckNamesNothing(subject, plant))


class _LastIdRefused(SubjectWrapper):
    def require_whole_dataset(self, dataset: Path) -> None:
        """The inner subject's check, and a refusal of the vocabulary's last id."""
        self.inner.require_whole_dataset(dataset)
        size = json.loads((dataset / "manifest.json").read_text())["tokenizer"]["vocab_size"]
        last = (size - 1).to_bytes(4, "little")
        for shard in dataset.glob("*.bin"):
            if last in shard.read_bytes():
                self.plant.effect(True)
                raise SubjectRefused("DATA", f"{shard}: token id {size - 1}")


@defect(
    "largest-id-is-refused",
    kind=PROTOCOL,
    imitates="a vocabulary's size taken for its largest id, less one",
    symptom="a shard with the last id of the vocabulary, often the end of text, is refused",
    hidden="prepare checks ids by itself, and a corpus without that id is taken",
)
def largest_id_is_refused(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _LastIdRefused(subject, plant))


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
