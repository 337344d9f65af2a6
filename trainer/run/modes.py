"""What the two modes of training default to, and how an explicit option wins.

INV-TRAIN-009: the three defaults of a mode come together; an option that was given replaces its own
field and no other. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.errors import ConfigurationError


@dataclass(frozen=True)
class Mode:
    """Learning rate at the peak, warm-up in optimizer steps, and the held-out loss to reach."""

    lr: float
    warmup: int
    target_loss: float


FINETUNE, FROM_SCRATCH = "finetune", "from-scratch"
MODES = {
    FINETUNE: Mode(lr=5e-5, warmup=100, target_loss=2.2),
    FROM_SCRATCH: Mode(lr=3e-4, warmup=1000, target_loss=3.0),
}


@dataclass(frozen=True)
class Chosen:
    """The mode a run trains in.

    Attributes:
        notice: what was adapted without being asked for, or is out of proportion; None if nothing.
    """

    name: str
    lr: float
    warmup: int
    target_loss: float
    notice: str | None


def choose(
    name: str | None,
    *,
    with_init: bool,
    num_steps: int,
    lr: float | None = None,
    warmup: int | None = None,
    target_loss: float | None = None,
) -> Chosen:
    """The mode called `name`, or the one that follows from `with_init`, with explicit options.

    A default warm-up that is longer than the run becomes a tenth of the run; one that was asked for
    is refused. One that is longer than a tenth of the run is used, and said.

    Raises:
        ConfigurationError: finetune without initial weights, or a warm-up longer than the run.
    """
    chosen = name or (FINETUNE if with_init else FROM_SCRATCH)
    if chosen == FINETUNE and not with_init:
        raise ConfigurationError("--mode finetune needs initial weights; pass --init")
    mode = MODES[chosen]
    notice = None
    if warmup is None:
        warmup = mode.warmup
        if warmup > num_steps:
            warmup = num_steps // 10
            notice = (
                f"the default warm-up of {mode.warmup} steps is longer than the run; "
                f"{warmup} steps are used (pass --warmup to choose)"
            )
        elif 10 * warmup > num_steps:
            notice = (
                f"the default warm-up of {warmup} steps is {warmup / num_steps:.0%} of the run's "
                f"{num_steps} (pass --warmup to choose)"
            )
    elif warmup > num_steps:
        raise ConfigurationError(
            f"C-TRAIN-PRETRAIN: warm-up of {warmup} steps does not fit in {num_steps} steps, the "
            "rate would never reach its peak; pass a shorter --warmup"
        )
    return Chosen(
        chosen,
        mode.lr if lr is None else lr,
        warmup,
        mode.target_loss if target_loss is None else target_loss,
        notice,
    )
