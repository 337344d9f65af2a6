"""The six metrics of an optimizer step, and the JSON lines they are logged as."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType


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
    """Writes one JSON object a line, each on disk before the next step starts."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

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
