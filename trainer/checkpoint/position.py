"""Where a run stands: the object ``training`` in a checkpoint's metadata.

Checkpoints exist between optimizer steps only, so that the position in the data follows from the
step: ``data_batch_idx = step × accumulation`` micro-batches were used up on each rank. It is stored
as well, and a file in which the two disagree is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from trainer.errors import CheckpointError, NewerCheckpoint
from trainer.schedule import WarmupCosine

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunSettings:
    """What decides the numbers of a run, and therefore may not change when it is resumed.

    Attributes:
        seed: of the initial weights and of the data order.
        accumulation: micro-batches a step on each rank.
        micro_batch_size: sequences a micro-batch.
        seq_length: target positions a sequence.
        world_size: ranks.
        steps_per_epoch: optimizer steps between two validations.
        compute_dtype: dtype of activations, ``float32`` or ``bfloat16``.
        dataset_sha256: of the prepared dataset; None for synthetic data.
        schedule: learning rate by step.
    """

    seed: int
    accumulation: int
    micro_batch_size: int
    seq_length: int
    world_size: int
    steps_per_epoch: int
    compute_dtype: str
    dataset_sha256: str | None
    schedule: WarmupCosine


@dataclass(frozen=True)
class TrainingPosition:
    """A boundary between two optimizer steps.

    Attributes:
        step: optimizer steps done.
        epoch: epochs completed, so that the next step belongs to epoch number `epoch`.
        tokens_seen: target tokens trained on so far, over all ranks.
        settings: must be the same when the run goes on.
        history: held-out loss of each completed epoch, nats per token; the guards need them.
        loop: what the run loop keeps within an epoch; JSON values, not interpreted here.
    """

    step: int
    epoch: int
    tokens_seen: int
    settings: RunSettings
    history: tuple[float, ...] = ()
    loop: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data_batch_idx(self) -> int:
        """Micro-batches used up on each rank: the index of the first one after a resume."""
        return self.step * self.settings.accumulation

    def to_metadata(self) -> dict[str, Any]:
        """JSON values; `from_metadata` is its inverse."""
        return {
            "schema_version": SCHEMA_VERSION,
            "step": self.step,
            "epoch": self.epoch,
            "tokens_seen": self.tokens_seen,
            "data_batch_idx": self.data_batch_idx,
            "settings": asdict(self.settings),
            "history": list(self.history),
            "loop": dict(self.loop),
        }

    @classmethod
    def from_metadata(cls, training: Any, source: str) -> TrainingPosition:
        """The position that `to_metadata` wrote; `source` names the file in errors.

        Raises:
            CheckpointError: a field is missing or of another type (F-CKPT-004), contradicts another
                one, or the schema is newer than this code (F-CKPT-002).
        """
        reader = _Reader(training, source, "training")
        version = reader.natural("schema_version")
        if version > SCHEMA_VERSION:
            raise NewerCheckpoint(
                f"F-CKPT-002: {source}: training.schema_version is {version}, this trainer reads "
                f"{SCHEMA_VERSION}; resume with the version of the trainer that wrote the file"
            )
        if version != SCHEMA_VERSION:
            raise CheckpointError(
                f"F-CKPT-002: {source}: training.schema_version is {version}, which no trainer "
                f"wrote; this one reads {SCHEMA_VERSION}, use another checkpoint"
            )
        position = cls(
            step=reader.natural("step"),
            epoch=reader.natural("epoch"),
            tokens_seen=reader.natural("tokens_seen"),
            settings=_read_settings(reader.object("settings")),
            history=reader.losses("history"),
            loop=reader.object("loop").values,
        )
        stored = reader.natural("data_batch_idx")
        if stored != position.data_batch_idx:
            raise CheckpointError(
                f"FALSIFY-DATARESUME-002: {source}: training.data_batch_idx is {stored}, but step "
                f"{position.step} × accumulation {position.settings.accumulation} is "
                f"{position.data_batch_idx}; the file contradicts itself, use another checkpoint"
            )
        return position


class _Reader:
    """Typed fields of a JSON object, each failure naming file and field."""

    def __init__(self, values: Any, source: str, where: str) -> None:
        self._source, self._where = source, where
        if not isinstance(values, Mapping):
            raise self._wrong(where, "an object", values)
        self.values: Mapping[str, Any] = values

    def object(self, name: str) -> _Reader:
        return _Reader(self._get(name), self._source, f"{self._where}.{name}")

    def natural(self, name: str) -> int:
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(f"{self._where}.{name}", "an integer of at least 0", value)
        return value

    def number(self, name: str) -> float:
        value = self._get(name)
        if not _is_finite_number(value):
            raise self._wrong(f"{self._where}.{name}", "a finite number", value)
        return float(value)

    def text(self, name: str) -> str:
        value = self._get(name)
        if not isinstance(value, str):
            raise self._wrong(f"{self._where}.{name}", "a string", value)
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self._get(name) is None else self.text(name)

    def losses(self, name: str) -> tuple[float, ...]:
        value = self._get(name)
        if not isinstance(value, list) or not all(_is_finite_number(loss) for loss in value):
            raise self._wrong(f"{self._where}.{name}", "a list of finite numbers", value)
        return tuple(float(loss) for loss in value)

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise CheckpointError(
                f"F-CKPT-004: {self._source}: {self._where}.{name} is missing; the training state "
                "is incomplete, use another checkpoint"
            )
        return self.values[name]

    def _wrong(self, where: str, needed: str, value: Any) -> CheckpointError:
        return CheckpointError(
            f"F-CKPT-004: {self._source}: {where} must be {needed}, not {str(value)[:80]!r}; "
            "use another checkpoint"
        )


def _read_settings(reader: _Reader) -> RunSettings:
    schedule = reader.object("schedule")
    return RunSettings(
        seed=reader.natural("seed"),
        accumulation=reader.natural("accumulation"),
        micro_batch_size=reader.natural("micro_batch_size"),
        seq_length=reader.natural("seq_length"),
        world_size=reader.natural("world_size"),
        steps_per_epoch=reader.natural("steps_per_epoch"),
        compute_dtype=reader.text("compute_dtype"),
        dataset_sha256=reader.optional_text("dataset_sha256"),
        schedule=WarmupCosine(
            lr_max=schedule.number("lr_max"),
            warmup_steps=schedule.natural("warmup_steps"),
            total_steps=schedule.natural("total_steps"),
            lr_min=schedule.number("lr_min"),
        ),
    )


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def differences(stored: Any, asked: Any) -> list[str]:
    """One line a field of two like dataclasses in which they differ, nested ones included."""
    found = []
    for entry in fields(stored):
        was, now = getattr(stored, entry.name), getattr(asked, entry.name)
        if hasattr(was, "__dataclass_fields__"):
            found += [f"{entry.name}.{line}" for line in differences(was, now)]
        elif was != now:
            found.append(f"{entry.name}: checkpoint {was!r}, asked {now!r}")
    return found
