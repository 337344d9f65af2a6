"""The rules of C-TRAIN-PRETRAIN, replayed over what a run recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from falsifiers.reference.schedule import learning_rate

METRICS = ("step", "train_loss", "grad_norm", "lr", "tokens_per_sec", "gpu_util_pct")
EPOCH_FIELDS = (
    "epoch",
    "train_loss",
    "val_loss",
    "train_ppl",
    "val_ppl",
    "optimizer_state_sha",
    "wall_seconds",
    "tokens_seen",
    "grad_norm_max",
)


def has_six_metrics(line: Mapping[str, Any]) -> bool:
    """All six, each of its type; only the utilisation may be absent, and then says why."""
    if not all(name in line for name in METRICS) or type(line["step"]) is not int:
        return False
    numbers = [line[name] for name in ("train_loss", "grad_norm", "lr", "tokens_per_sec")]
    used = line["gpu_util_pct"]
    explained = isinstance(line.get("gpu_util_absent_reason"), str)
    return all(map(is_number, numbers)) and (explained if used is None else is_number(used))


def is_possible(line: Mapping[str, Any]) -> bool:
    """Finite, a norm and a rate that are not negative, a utilisation that is a percentage."""
    values: list[Any] = [line.get(n) for n in ("train_loss", "grad_norm", "lr", "tokens_per_sec")]
    if not all(is_number(value) and math.isfinite(value) and value >= 0 for value in values):
        return False
    used = line.get("gpu_util_pct")
    return used is None or (is_number(used) and 0 <= used <= 100)


def has_nine_fields(metadata: Mapping[str, Any]) -> bool:
    """All nine, finite where they are numbers, the digest of 64 hexadecimal digits."""
    if not all(name in metadata for name in EPOCH_FIELDS):
        return False
    sha = metadata["optimizer_state_sha"]
    numbers = [metadata[name] for name in EPOCH_FIELDS if name != "optimizer_state_sha"]
    hexadecimal = isinstance(sha, str) and len(sha) == 64 and not set(sha) - set("0123456789abcdef")
    return hexadecimal and all(is_number(value) and math.isfinite(value) for value in numbers)


def is_number(value: Any) -> bool:
    """An int or a float, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def rate_error(
    log: Sequence[Mapping[str, Any]], peak: float, warmup: int, planned_steps: int
) -> float:
    """Largest |logged rate - warm-up and cosine| over the steps, as a share of the peak."""

    def expected(step: int) -> float:
        return learning_rate(
            step, lr_max=peak, lr_min=0.0, warmup_steps=warmup, total_steps=planned_steps
        )

    errors: list[float] = [abs(line["lr"] - expected(line["step"])) / peak for line in log]
    return max(errors)


def early_stop(losses: Sequence[float], patience: int, earliest: int) -> int | None:
    """The first epoch, from 0, after which a run must stop early; None if there is none.

    That is one from `earliest` on whose last `patience` epochs brought no new best.
    """
    for epoch in range(earliest, len(losses)):
        before, late = losses[: epoch + 1 - patience], losses[epoch + 1 - patience : epoch + 1]
        if before and min(late) >= min(before):
            return epoch
    return None


def divergence(losses: Sequence[float], growth: float, ceiling: float) -> int | None:
    """The first epoch, from 0, whose held-out loss is divergence; None if there is none."""
    for epoch, loss in enumerate(losses):
        if loss > (growth * losses[epoch - 1] if epoch else ceiling):
            return epoch
    return None
