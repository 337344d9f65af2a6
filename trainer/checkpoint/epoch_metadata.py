"""``ckpt/epoch-NNN.metadata.json``: what an epoch came to, in nine fields (INV-TRAIN-002)."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.weights.durable import durable_file


@dataclass(frozen=True)
class EpochSummary:
    """An epoch that was trained and validated.

    Attributes:
        epoch: its number, from 0.
        train_loss: mean over the epoch's target tokens, nats.
        val_loss: mean over the held-out target tokens, nats.
        wall_seconds: of the epoch, validation included.
        tokens_seen: target tokens since the start of training, over all ranks.
        grad_norm_max: greatest gradient norm before clipping in the epoch.
        extras: further JSON values for the file.
    """

    epoch: int
    train_loss: float
    val_loss: float
    wall_seconds: float
    tokens_seen: int
    grad_norm_max: float
    extras: Mapping[str, Any] = field(default_factory=dict)


def write_epoch_metadata(path: Path, summary: EpochSummary, optimizer_state_sha: str) -> None:
    """Write the nine fields to `path`, durably. Raises OSError."""
    fields = dict(summary.extras) | {
        "epoch": summary.epoch,
        "train_loss": summary.train_loss,
        "val_loss": summary.val_loss,
        "train_ppl": _perplexity(summary.train_loss),
        "val_ppl": _perplexity(summary.val_loss),
        "optimizer_state_sha": optimizer_state_sha,
        "wall_seconds": summary.wall_seconds,
        "tokens_seen": summary.tokens_seen,
        "grad_norm_max": summary.grad_norm_max,
    }
    text = json.dumps(fields, indent=2, allow_nan=False) + "\n"
    with durable_file(path) as file:
        file.write(text.encode())


def _perplexity(loss: float) -> float:
    """exp of a mean loss; the greatest float where that is larger, for JSON has no infinity."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else sys.float_info.max
