"""Checkpoints that lose a part of the state, or are taken where they must be refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.subject import Configuration, SubjectRefused
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper, wrap_instances

_STORED = "trainer.checkpoint.checkpoint_file:CheckpointFile.tensors"
_MOMENTS = (".exp_avg", ".exp_avg_sq")


# --- what is restored


def _restore(plant: Plant, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Let the loader be given ``change(tensors)`` instead of the tensors of the file."""

    def make(original: Any) -> Any:
        def tensors(file: Any) -> dict[str, Any]:
            stored: dict[str, Any] = original(file)
            given = change(dict(stored))
            plant.effect(any(differs(stored[n], given[n]) for n in stored))
            return given

        return tensors

    plant.patch(_STORED, make)


@defect(
    "second-moment-restored-as-zero",
    kind=SOURCE,
    imitates="flashoptim#3: an optimizer state dict of which a part is not loaded",
    symptom="after a resume AdamW's second moments are zero",
    hidden="the first updates are too long, and the loss recovers from them within steps",
)
def second_moment_restored_as_zero(plant: Plant) -> None:
    """Give zeros for every second moment."""
    _restore(
        plant,
        lambda own: {n: t * 0 if n.endswith("exp_avg_sq") else t for n, t in own.items()},
    )


@defect(
    "moments-mapped-in-another-order",
    kind=SOURCE,
    imitates="pytorch#1489: optimizer state goes to parameters by position, not by name",
    symptom="the moments of a layer's two norms are exchanged on resume",
    hidden="shapes agree, and a norm's update is small beside those of the matrices",
)
def moments_mapped_in_another_order(plant: Plant) -> None:
    """Exchange the moments of the first layer's norms."""

    def change(own: dict[str, Any]) -> dict[str, Any]:
        for moment in _MOMENTS:
            names = [
                f"__training__.optim.model.layers.0.{norm}.weight{moment}"
                for norm in ("input_layernorm", "post_attention_layernorm")
            ]
            own[names[0]], own[names[1]] = own[names[1]], own[names[0]]
        return own

    _restore(plant, change)


@defect(
    "adamw-count-not-restored",
    kind=SOURCE,
    imitates="a step counter of the loop that is restored, beside one of the optimizer that is not",
    symptom="AdamW's own step count stays what it was, so bias is corrected twice",
    hidden="the log counts on as it should, and the first updates are only a little too long",
)
def adamw_count_not_restored(plant: Plant) -> None:
    """Set the trainer's step alone."""

    def make(original: Any) -> Any:
        def set_step(trainer: Any, step: int) -> None:
            plant.effect(step != trainer.step)
            trainer.step = step

        return set_step

    plant.patch("trainer.checkpoint.restore:_set_step", make)


@defect(
    "random-state-not-restored",
    kind=SOURCE,
    imitates="generators that are saved and never put back",
    symptom="after a resume random numbers go on from wherever the process stands",
    hidden="nothing in training draws one until somebody adds dropout",
)
def random_state_not_restored(plant: Plant) -> None:
    """Leave the generators alone."""
    plant.patch(
        "trainer.checkpoint.restore:restore_random_state",
        lambda _: lambda *arguments: plant.effect(True),
    )


class _MomentsRounded(InstanceWrapper):
    def load_checkpoint(self, path: Path, provenance: Any) -> int:
        """A right load, after which the first moments have the bits of bfloat16."""
        import torch

        index = self.inner.load_checkpoint(path, provenance)
        for moments in self.inner.optimizer_state().values():
            rounded = moments.exp_avg.to(torch.bfloat16).float()
            self.plant.effect(differs(moments.exp_avg, rounded))
            moments.exp_avg.copy_(rounded)
        return index


@defect(
    "restored-moments-in-bfloat16",
    kind=PROTOCOL,
    imitates="optimizer state that goes through the compute dtype on its way back",
    symptom="first moments come back rounded to eight bits",
    hidden="losses agree to five digits, as with another order of summation",
)
def restored_moments_in_bfloat16(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _MomentsRounded)


class _StaleWeights(InstanceWrapper):
    def __init__(self, inner: Any, plant: Plant) -> None:
        super().__init__(inner, plant)
        self._held = {name: value.clone() for name, value in inner.parameters().items()}

    def save_checkpoint(self, path: Path, provenance: Any) -> None:
        """Save the weights that the instance was built with, then put its own back."""
        own = {name: value.clone() for name, value in self.inner.parameters().items()}
        self.plant.effect(any(differs(own[n], value) for n, value in self._held.items()))
        self.inner.set_parameters(self._held)
        try:
            self.inner.save_checkpoint(path, provenance)
        finally:
            self.inner.set_parameters(own)


@defect(
    "checkpoint-holds-initial-weights",
    kind=PROTOCOL,
    imitates="the seed's hazard: a hook that holds a copy of the weights taken at start",
    symptom="every checkpoint holds the weights of step 0, with right moments",
    hidden="training goes on undisturbed, and nobody loads a checkpoint until it is needed",
)
def checkpoint_holds_initial_weights(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _StaleWeights)


# --- what is taken


class _LoadedAnyway(InstanceWrapper):
    def load_checkpoint(self, path: Path, provenance: Any) -> int:
        """Start again from the beginning when the file is refused."""
        try:
            return self.inner.load_checkpoint(path, provenance)
        except SubjectRefused:
            self.plant.effect(True)
            return 0


@defect(
    "refused-checkpoint-passed-over",
    kind=PROTOCOL,
    imitates="a warning and a fresh start in the place of an error",
    symptom="what cannot be resumed starts again from step 0 without a word",
    hidden="the run trains, and only its first losses are high again",
)
def refused_checkpoint_passed_over(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _LoadedAnyway)


class _Traces(InstanceWrapper):
    def load_checkpoint(self, path: Path, provenance: Any) -> int:
        """Refuse as ever, after one moment has been written already."""
        try:
            return self.inner.load_checkpoint(path, provenance)
        except SubjectRefused:
            first = next(iter(self.inner.optimizer_state().values())).exp_avg
            self.plant.effect(bool(first.any()))
            first.zero_()
            raise


@defect(
    "refused-checkpoint-leaves-traces",
    kind=PROTOCOL,
    imitates="a loader that copies tensor by tensor and finds out half-way",
    symptom="a refused file has already replaced a moment",
    hidden="the error is reported, and whoever goes on after it goes on with a mixture",
)
def refused_checkpoint_leaves_traces(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _Traces)


@defect(
    "newer-schema-accepted",
    kind=SOURCE,
    imitates="a version field that is written and never compared",
    symptom="a file of a newer schema is read as if it were of this one",
    hidden="the fields that both know are there, and what is new is ignored",
)
def newer_schema_accepted(plant: Plant) -> None:
    """Read every version as the known one."""

    def make(original: Any) -> Any:
        def from_metadata(training: Any, source: str) -> Any:
            version = training.get("schema_version", 1)
            plant.effect(version != 1)
            return original({**training, "schema_version": 1}, source)

        return from_metadata

    plant.patch("trainer.checkpoint.position:TrainingPosition.from_metadata", make)


@defect(
    "missing-moments-default-to-zero",
    kind=SOURCE,
    imitates="load_state_dict with strict=False, for an optimizer",
    symptom="a file without moments is resumed with zeros for them",
    hidden="it is what a fresh optimizer has, and the loss goes on falling",
)
def missing_moments_default_to_zero(plant: Plant) -> None:
    """Fill up what is missing."""

    def tensors(original: Any) -> Any:
        def filled(file: Any) -> dict[str, Any]:
            stored: dict[str, Any] = original(file)
            weights = {n: t for n, t in stored.items() if not n.startswith("__training__.")}
            for name, value in weights.items():
                for moment in _MOMENTS:
                    key = f"__training__.optim.{name}{moment}"
                    plant.effect(key not in stored)
                    stored.setdefault(key, value * 0)
            return stored

        return filled

    plant.patch(
        "trainer.checkpoint.checkpoint_file:CheckpointFile._require_complete",
        lambda _: lambda file: None,
    )
    plant.patch(_STORED, tensors)


@defect(
    "dataset-hash-not-compared",
    kind=SOURCE,
    imitates="a digest that is stored for people to read",
    symptom="a run is resumed on another dataset than it was started on",
    hidden="the loss of text is much like that of other text",
)
def dataset_hash_not_compared(plant: Plant) -> None:
    """Take the file's own hash for the one that is asked for."""

    def make(original: Any) -> Any:
        def require(file: Any, trainer: Any, settings: Any) -> None:
            stored = file.position.settings.dataset_sha256
            plant.effect(stored != settings.dataset_sha256)
            original(file, trainer, replace(settings, dataset_sha256=stored))

        return require

    plant.patch("trainer.checkpoint.restore:_require_same_run", make)


class _ProvenanceOfTheFile(InstanceWrapper):
    saved: Mapping[str, Any]

    def save_checkpoint(self, path: Path, provenance: Any) -> None:
        """Save, and remember with what."""
        self.inner.save_checkpoint(path, provenance)
        self._known()[str(path)] = provenance

    def load_checkpoint(self, path: Path, provenance: Any) -> int:
        """Load as if the file's own provenance had been asked for."""
        known = self._known().get(str(path), provenance)
        self.plant.effect(known != provenance)
        return self.inner.load_checkpoint(path, known)

    def _known(self) -> dict[str, Any]:
        known: dict[str, Any] = self.plant.__dict__.setdefault("provenance_by_path", {})
        return known


@defect(
    "provenance-taken-from-the-file",
    kind=PROTOCOL,
    imitates="settings that a resumed run reads from its checkpoint and not from its caller",
    symptom="whatever dataset and accumulation the caller names, the file's are believed",
    hidden="the position fits the old data, and the new data is read at it",
)
def provenance_taken_from_the_file(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _ProvenanceOfTheFile)


@defect(
    "other-architecture-resumed",
    kind=SOURCE,
    imitates="a loader that compares shapes and takes what fits",
    symptom="a file of another theta or eps is loaded into this model",
    hidden="every shape fits, and the loss is a little higher for a while",
)
def other_architecture_resumed(plant: Plant) -> None:
    """Compare the file's architecture with itself."""

    def make(original: Any) -> Any:
        def require(file: Any, trainer: Any, settings: Any) -> None:
            plant.effect(file.config != trainer.config)
            original(file, SimpleNamespace(config=file.config), settings)

        return require

    plant.patch("trainer.checkpoint.restore:_require_same_run", make)


@defect(
    "metadata-of-the-defaults",
    kind=SOURCE,
    imitates="the seed's hazard: configuration fields that are silently defaulted",
    symptom="the file's metadata says eps 1e-5 whatever the model has",
    hidden="the trainer that wrote it does not look at the field",
)
def metadata_of_the_defaults(plant: Plant) -> None:
    """Write a constant eps."""

    def make(original: Any) -> Any:
        def config_metadata(config: Any) -> dict[str, Any]:
            own: dict[str, Any] = original(config)
            plant.effect(own["rms_norm_eps"] != 1e-5)
            return {**own, "rms_norm_eps": 1e-5}

        return config_metadata

    plant.patch("trainer.checkpoint.writer:config_metadata", make)


class _SecondArchitecture(SubjectWrapper):
    def build(self, config: Configuration, **options: Any) -> Any:
        """Build with a theta that no file of this run states."""
        other = {**config, "rope_theta": config["rope_theta"] * 2}
        self.plant.effect(True)
        return self.inner.build(other, **options)


@defect(
    "theta-doubled-in-model-and-file",
    kind=PROTOCOL,
    imitates="a configuration field that is changed between the caller and the model",
    symptom="model and metadata agree with one another and not with the caller",
    hidden="the file is consistent, and so is every resume from it",
)
def theta_doubled_in_model_and_file(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _SecondArchitecture(subject, plant))


@defect(
    "shapes-not-checked",
    kind=SOURCE,
    imitates="copy_ with broadcasting as the only check of a shape",
    symptom="a tensor that contradicts its configuration is found out by whoever copies it, or not",
    hidden="files that the trainer writes itself never show it",
)
def shapes_not_checked(plant: Plant) -> None:
    """Check nothing."""

    def make(original: Any) -> Any:
        def check(shapes: Any, metadata: Any, path: Any) -> None:
            try:
                original(shapes, metadata, path)
                plant.effect(False)
            except Exception:  # whatever contradiction it found is passed over
                plant.effect(True)

        return check

    plant.patch("trainer.weights.apr_metadata:check_shapes", make)


# --- NaN and Inf


def _let_pass(plant: Plant, module: str, passes: Callable[[str, Any], bool]) -> None:
    """Let tensors for which ``passes(name, values)`` be written or read unchecked."""

    def make(original: Any) -> Any:
        def require_finite(name: str, values: Any, path: Any) -> None:
            if passes(name, values):
                plant.effect(not bool(values.isfinite().all()))
                return
            original(name, values, path)

        return require_finite

    plant.patch(f"trainer.weights.{module}:require_finite", make)


def _is_training(name: str, values: Any) -> bool:
    return name.startswith("__training__.")


@defect(
    "moments-written-unchecked",
    kind=SOURCE,
    imitates="a check of the model's weights before a save, and of nothing else",
    symptom="NaN or Inf in a moment is written",
    hidden="the weights are still finite; the next step after a resume is not",
)
def moments_written_unchecked(plant: Plant) -> None:
    """Check weights only."""
    _let_pass(plant, "apr_writer", _is_training)


@defect(
    "moments-read-unchecked",
    kind=SOURCE,
    imitates="a check of the model's weights after a load, and of nothing else",
    symptom="NaN or Inf in a moment is read",
    hidden="the weights are still finite; the next step is not",
)
def moments_read_unchecked(plant: Plant) -> None:
    """Check weights only."""
    _let_pass(plant, "apr_file", _is_training)


def _has_no_nan(name: str, values: Any) -> bool:
    return not bool(values.isnan().any())


@defect(
    "infinity-written",
    kind=SOURCE,
    imitates="isnan where isfinite was meant",
    symptom="an infinite weight is written",
    hidden="NaN is refused, as a test of the guard shows",
)
def infinity_written(plant: Plant) -> None:
    """Refuse NaN only."""
    _let_pass(plant, "apr_writer", _has_no_nan)


@defect(
    "infinity-read",
    kind=SOURCE,
    imitates="isnan where isfinite was meant",
    symptom="an infinite weight is read",
    hidden="NaN is refused, as a test of the guard shows",
)
def infinity_read(plant: Plant) -> None:
    """Refuse NaN only."""
    _let_pass(plant, "apr_file", _has_no_nan)


class _Sanitized(InstanceWrapper):
    def save_checkpoint(self, path: Path, provenance: Any) -> None:
        """Replace what is not finite by zero, and save."""
        import torch

        moments = self.inner.optimizer_state().values()
        live = [*self.inner.parameters().values(), *(m.exp_avg for m in moments)]
        for tensor in [*live, *(m.exp_avg_sq for m in moments)]:
            self.plant.effect(not bool(tensor.isfinite().all()))
            torch.nan_to_num_(tensor, 0.0, 0.0, 0.0)
        self.inner.save_checkpoint(path, provenance)


@defect(
    "non-finite-replaced-by-zero",
    kind=PROTOCOL,
    imitates="nan_to_num before a save, to get past an error",
    symptom="a run that has diverged is saved as if it had not",
    hidden="the file is finite, and so is the next loss",
)
def non_finite_replaced_by_zero(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _Sanitized)


# --- canonical form


@defect(
    "time-of-writing-in-metadata",
    kind=SOURCE,
    imitates="a created_at that makes each file of one state another file",
    symptom="two saves of one state differ in their bytes",
    hidden="every tensor is the same, and nobody hashes checkpoints",
)
def time_of_writing_in_metadata(plant: Plant) -> None:
    """Stamp each file."""
    import time

    def make(original: Any) -> Any:
        def encode(metadata: Any, path: Any) -> Any:
            plant.effect(True)
            return original({**metadata, "created_at": str(time.time_ns())}, path)

        return encode

    plant.patch("trainer.weights.apr_metadata:encode_metadata", make)


# --- position in the data


class _OneMore(InstanceWrapper):
    def load_checkpoint(self, path: Path, provenance: Any) -> int:
        """The index after the one that the file holds."""
        self.plant.effect(True)
        return self.inner.load_checkpoint(path, provenance) + 1


@defect(
    "resume-skips-a-batch",
    kind=PROTOCOL,
    imitates="a position that counts the batch which was being read when the run died",
    symptom="a resumed run begins one micro-batch too late",
    hidden="one batch among a million is never trained on",
)
def resume_skips_a_batch(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _OneMore)


class _FromTheStart(InstanceWrapper):
    def load_checkpoint(self, path: Path, provenance: Any) -> int:
        """A right load that says that no batch was used up."""
        self.plant.effect(self.inner.load_checkpoint(path, provenance) != 0)
        return 0


@defect(
    "resume-restarts-data",
    kind=PROTOCOL,
    imitates="the seed's incident: resumed at step 25,000, data starts at shard 0",
    symptom="weights and step go on, and the data starts again",
    hidden="the loss even falls: this data was seen before",
)
def resume_restarts_data(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _FromTheStart)


@defect(
    "data-position-counts-steps",
    kind=SOURCE,
    imitates="accelerate#4071: a data position in another unit than the reader's",
    symptom="the position is the step, and not the step times its micro-batches",
    hidden="without accumulation it is the same number",
)
def data_position_counts_steps(plant: Plant) -> None:
    """Count steps."""

    def make(original: Any) -> Any:
        def position(own: Any) -> int:
            step: int = own.step
            plant.effect(step != original.fget(own))
            return step

        return property(position)

    plant.patch("trainer.checkpoint.position:TrainingPosition.data_batch_idx", make)


class _PositionLeftOut(InstanceWrapper):
    def save_checkpoint(self, path: Path, provenance: Any) -> None:
        """Save, then take the position out of the file."""
        from falsifiers.apr_edits import taken_apart

        self.inner.save_checkpoint(path, provenance)
        parts = taken_apart(path)
        self.plant.effect(parts.metadata["training"].pop("data_batch_idx", None) is not None)
        path.write_bytes(parts.packed())

    def load_checkpoint(self, path: Path, provenance: Any) -> int:
        """Say 0 where there is no position."""
        from falsifiers.apr_edits import taken_apart

        has_one = "data_batch_idx" in taken_apart(path).metadata["training"]
        return self.inner.load_checkpoint(path, provenance) if has_one else 0


@defect(
    "saved-without-data-position",
    kind=PROTOCOL,
    imitates="the seed's incident: a checkpoint of weights and step alone",
    symptom="the file does not say which batch comes next",
    hidden="weights, moments and step are all there",
)
def saved_without_data_position(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _PositionLeftOut)


@defect(
    "stream-ignores-its-first-step",
    kind=SOURCE,
    imitates="the seed's incident: resumed at step 25,000, data starts at shard 0",
    symptom="the stream starts at its first batch, whatever step it is asked for",
    hidden="the loss even falls: this data was seen before",
)
def stream_ignores_its_first_step(plant: Plant) -> None:
    """Start at 0."""

    def make(original: Any) -> Any:
        def deliver(make_step: Any, first_step: int, *arguments: Any) -> Any:
            plant.effect(first_step != 0)
            return original(make_step, 0, *arguments)

        return deliver

    plant.patch("trainer.corpus.corpus:deliver", make)


class _LastStepAgain(SubjectWrapper):
    def training_batches(self, dataset: Path, *, first_step: int = 0, **options: Any) -> Any:
        """Begin with the step before the first."""
        self.plant.effect(first_step > 0)
        return self.inner.training_batches(dataset, first_step=max(first_step - 1, 0), **options)


@defect(
    "resume-replays-a-step",
    kind=PROTOCOL,
    imitates="accelerate#4071: data that was trained on is replayed after a resume",
    symptom="a resumed stream begins with the last step's batches",
    hidden="a few windows are seen twice in an epoch",
)
def resume_replays_a_step(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _LastStepAgain(subject, plant))
