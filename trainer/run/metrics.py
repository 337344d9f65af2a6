"""The six metrics of an optimizer step, and the JSON lines they are logged as."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from trainer.errors import CheckpointError


@dataclass(frozen=True)
class StepMetrics:
    """What is known of one optimizer step. Nothing here is ever made up.

    Attributes:
        step: optimizer steps done before this one, from 0.
        train_loss: mean negative log-likelihood per target token, nats.
        grad_norm: global L2 norm over every trainable parameter's gradient, before clipping.
        lr: the learning rate this step was taken with.
        tokens_per_sec: target tokens per second of wall time.
        gpu_util_pct: 0..100 as the driver measured it, or None.
        gpu_util_absent_reason: why gpu_util_pct is None, else None.
        gpu_util_age_s: seconds since the driver was asked, or None.
    """

    step: int
    train_loss: float
    grad_norm: float
    lr: float
    tokens_per_sec: float
    gpu_util_pct: float | None
    gpu_util_absent_reason: str | None
    gpu_util_age_s: float | None


class MetricsLog:
    """Writes one JSON object a line, each handed to the system before the next step is read.

    Args:
        path: the log; with `keep` 0 it is made anew.
        keep: steps of an earlier start that stay; whatever it logged after them is cut off.

    Raises:
        CheckpointError: the log does not hold the steps to keep.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        if keep:
            os.truncate(path, _length_of(path, keep))
        self._file = path.open("a" if keep else "w", encoding="utf-8")

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, metrics: StepMetrics) -> None:
        """Append `metrics`. NaN is not JSON, and is refused with a `ValueError`."""
        self._file.write(json.dumps(asdict(metrics), allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Put every line on the disk, so that no checkpoint is ahead of the log."""
        os.fsync(self._file.fileno())


def read_log(path: Path) -> list[StepMetrics]:
    """Every step in the log at `path`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [StepMetrics(**json.loads(line)) for line in lines]


def _length_of(path: Path, steps: int) -> int:
    length = 0
    try:
        with path.open("rb") as file:
            for step in range(steps):
                line = file.readline()
                if not line.endswith(b"\n") or json.loads(line)["step"] != step:
                    raise ValueError(f"line {step + 1} is not step {step}")
                length += len(line)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"INV-TRAIN-001: {path}: the log does not hold the {steps} steps before the "
            f"checkpoint: {error}; resume needs the log and the checkpoints of one run"
        ) from error
    return length
