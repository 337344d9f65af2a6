"""Log and checkpoints of a run on several ranks: one rank writes, and all of them fail or none.

With a single process these are `MetricsLog` and `CheckpointWriter`, and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from trainer.checkpoint.capture import assist
from trainer.checkpoint.epoch_metadata import EpochSummary
from trainer.checkpoint.position import TrainingPosition
from trainer.checkpoint.writer import CheckpointWriter, WrittenCheckpoint
from trainer.errors import ConfigurationError
from trainer.parallel.ranks import Ranks
from trainer.run.metrics import MetricsLog, StepMetrics
from trainer.trainer import PretrainTrainer


class JointLog(MetricsLog):
    """A `MetricsLog` that only the leading rank has.

    Raises:
        CheckpointError: on every rank, if the leading one cannot go on with the log.
    """

    def __init__(self, path: Path, keep: int, ranks: Ranks) -> None:
        self._writes = ranks.world.leads
        with ranks.together():
            if self._writes:
                super().__init__(path, keep)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writes:
            super().__exit__(kind, error, trace)

    def write(self, metrics: StepMetrics) -> None:
        """See `MetricsLog`."""
        if self._writes:
            super().write(metrics)

    def sync(self) -> None:
        """See `MetricsLog`."""
        if self._writes:
            super().sync()


class JointWriter:
    """The `CheckpointWriter` of the leading rank, whose errors every rank raises.

    All ranks call the same methods in the same order.
    """

    def __init__(self, metadata: Mapping[str, Any], ranks: Ranks) -> None:
        self._ranks = ranks
        self._writer = CheckpointWriter(metadata) if ranks.world.leads else None

    def __enter__(self) -> JointWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            if self._writer is not None:
                self._writer.__exit__(kind, error, trace)

    def save(
        self,
        trainer: PretrainTrainer,
        position: TrainingPosition,
        path: Path,
        *,
        epoch: EpochSummary | None = None,
        on_done: Callable[[WrittenCheckpoint], None] | None = None,
    ) -> None:
        """See `CheckpointWriter`; the other ranks contribute what they hold."""
        self.wait()
        if self._writer is None:
            assist(trainer)
        else:
            self._writer.save(trainer, position, path, epoch=epoch, on_done=on_done)

    def wait(self) -> None:
        """See `CheckpointWriter`."""
        with self._ranks.together():
            if self._writer is not None:
                self._writer.wait()

    def poll(self) -> None:
        """See `CheckpointWriter`."""
        with self._ranks.together():
            if self._writer is not None:
                self._writer.poll()


def require_same_start(trainer: PretrainTrainer) -> None:
    """Refuse to train if the ranks do not begin at the same step with the same weights.

    Raises:
        ConfigurationError: on every rank.
    """
    parallel = trainer.parallel
    sums = [parallel.whole(p).double().sum() for p in parallel.spread(_weights(trainer)).values()]
    # Bits as integers, so that ranks can compare them by their greatest and least value.
    bits = int(torch.stack([*sums]).sum().cpu().view(torch.int64)) >> 1
    for number in (bits, trainer.step):
        if parallel.ranks.greatest(number) != -parallel.ranks.greatest(-number):
            raise ConfigurationError(
                "the ranks do not begin with the same step and weights; give every machine the "
                "same --init and --run-dir"
            )


def _weights(trainer: PretrainTrainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in trainer.parameters.items()}
