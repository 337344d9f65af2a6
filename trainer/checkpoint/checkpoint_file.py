"""A resumable checkpoint, opened: checked from first byte to last before anything is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from trainer.checkpoint import digest, state
from trainer.checkpoint.position import TrainingPosition
from trainer.config import ModelConfig
from trainer.errors import (
    ArchitectureError,
    CheckpointError,
    NewerCheckpoint,
    NewerWeights,
    WeightsError,
)
from trainer.weights.apr_file import AprFile
from trainer.weights.apr_metadata import config_from_metadata


class CheckpointFile:
    """Weights, moments and position of one file, memory-mapped; a context manager.

    Attributes:
        path: the file.
        config: the architecture.
        position: where the run stood.
        random_state: what `random_state.restore_random_state` takes.

    Raises:
        CheckpointError: the file is missing, damaged (F-CKPT-011), newer (F-CKPT-002), holds no
            complete training state (F-CKPT-004), or tensors that do not fit its configuration
            (F-CKPT-008).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = AprFile(path)
        except NewerWeights as error:
            raise NewerCheckpoint(f"F-CKPT-002: {error}") from error
        except (WeightsError, ArchitectureError, OSError) as error:
            raise CheckpointError(f"F-CKPT-011: {path}: not a good checkpoint: {error}") from error
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> CheckpointFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the training state by name, float32 views of the mapped file.

        Raises:
            CheckpointError: one holds NaN or Inf (F-CKPT-013).
        """
        try:
            return {name: self._file.tensor(name) for name in self._file.names()}
        except WeightsError as error:
            raise CheckpointError(f"F-CKPT-013: {error}; use another checkpoint") from error

    def optimizer_state_sha(self) -> str:
        """`digest.optimizer_state_sha` of what the file holds."""
        return digest.optimizer_state_sha(self.tensors(), self.position.step)

    def _read(self) -> None:
        training = self._file.metadata.get("training")
        if training is None:
            raise CheckpointError(
                f"F-CKPT-004: {self.path}: the file holds weights only, no training state to "
                "resume from; start a new run with --init"
            )
        self.position = TrainingPosition.from_metadata(training, str(self.path))
        self.random_state = self._random_state(training)
        try:
            self.config: ModelConfig = config_from_metadata(self._file.metadata)
        except (WeightsError, ArchitectureError) as error:
            raise CheckpointError(f"F-CKPT-008: {self.path}: {error}") from error
        self._require_complete()

    def _random_state(self, training: Mapping[str, Any]) -> Mapping[str, Any]:
        states = training.get("random_state")
        if not isinstance(states, Mapping):
            raise CheckpointError(
                f"F-CKPT-004: {self.path}: training.random_state must be an object, not "
                f"{type(states).__name__}; use another checkpoint"
            )
        return states

    def _require_complete(self) -> None:
        entries = self._file.entries
        complete = state.complete_names(entries)
        missing, unknown = sorted(complete - entries.keys()), sorted(entries.keys() - complete)
        if missing or unknown:
            raise CheckpointError(
                f"F-CKPT-004: {self.path}: {len(missing)} tensors are missing "
                f"({', '.join(missing[:3])}) and {len(unknown)} are unknown "
                f"({', '.join(unknown[:3])}); use another checkpoint"
            )
        for name, entry in entries.items():
            if entry.dtype != "float32":
                raise CheckpointError(
                    f"F-CKPT-004: {self.path}: {name} is {entry.dtype}; training state is float32, "
                    "start a new run with --init"
                )
