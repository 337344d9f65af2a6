"""What ends a run although every number in it is finite. None of it can be configured away.

Imports no torch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

from trainer.errors import Divergence, NumericalInstability, ThroughputOutOfRange
from trainer.run.modes import FINETUNE

GROWTH_LIMIT = 2.0
"""INV-TRAIN-005: a held-out loss above this times the one before is divergence."""

FINETUNE_CEILING = 10.0
"""INV-TRAIN-005: nats per token after the first epoch of fine-tuning."""

PATIENCE = 2
"""INV-TRAIN-004: epochs without a new best held-out loss before a run stops."""

EARLIEST_STOP = 3
"""INV-TRAIN-004: the first epoch, counted from 0, after which a run may stop early."""

THROUGHPUT_STEPS = 20


def first_epoch_ceiling(mode: str, vocab_size: int) -> float:
    """The highest held-out loss allowed after epoch 0, nats: 10, or twice that of guessing."""
    return FINETUNE_CEILING if mode == FINETUNE else 2 * math.log(vocab_size)


def require_finite(epoch: int, val_loss: float) -> None:
    """Refuse a held-out loss that is NaN or infinite.

    Raises:
        NumericalInstability: INV-TRAIN-007.
    """
    if not math.isfinite(val_loss):
        raise NumericalInstability(
            f"INV-TRAIN-007: the held-out loss of epoch {epoch} is {val_loss}; the last checkpoint "
            "is from before, look at --lr and the data"
        )


def require_convergence(val_losses: Sequence[float], mode: str, vocab_size: int) -> None:
    """Refuse the last of `val_losses`, the held-out loss of each epoch so far, if it diverged.

    Raises:
        Divergence: INV-TRAIN-005.
    """
    epoch, latest = len(val_losses) - 1, val_losses[-1]
    if epoch == 0:
        ceiling = first_epoch_ceiling(mode, vocab_size)
        if latest > ceiling:
            raise Divergence(
                f"INV-TRAIN-005: the held-out loss after epoch 0 is {latest:.4f}, above "
                f"{ceiling:.4f}, the limit in mode {mode}; look at --lr, --init and the data"
            )
    elif latest > GROWTH_LIMIT * val_losses[-2]:
        raise Divergence(
            f"INV-TRAIN-005: the held-out loss after epoch {epoch} is {latest:.4f}, more than "
            f"{GROWTH_LIMIT:g} times the {val_losses[-2]:.4f} before; look at --lr and the data"
        )


def stops_early(val_losses: Sequence[float]) -> bool:
    """INV-TRAIN-004: whether the last `PATIENCE` epochs brought no new best held-out loss."""
    epoch = len(val_losses) - 1
    if epoch < EARLIEST_STOP:
        return False
    return min(val_losses[-PATIENCE:]) >= min(val_losses[:-PATIENCE])


class ThroughputGuard:
    """Watches the median rate of the last 20 steps, which a slow start or one hiccup cannot move.

    Args:
        least: target tokens per second; None watches nothing.
    """

    def __init__(self, least: float | None) -> None:
        self._least = least
        self._rates: deque[float] = deque(maxlen=THROUGHPUT_STEPS)

    def add(self, tokens_per_sec: float) -> None:
        """Take the rate of one more step.

        Raises:
            ThroughputOutOfRange: the median is below the least rate.
        """
        if self._least is None:
            return
        self._rates.append(tokens_per_sec)
        if len(self._rates) == THROUGHPUT_STEPS and (rate := median(self._rates)) < self._least:
            raise ThroughputOutOfRange(
                f"C-TRAIN-PRETRAIN: the median of {THROUGHPUT_STEPS} steps is {rate:,.0f} tokens/s,"
                f" below --min-tokens-per-sec {self._least:,.0f}; look for other users of the "
                "device, or lower the limit"
            )
