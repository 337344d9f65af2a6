"""Learning rate by optimizer step: linear warm-up, then half a cosine (Loshchilov and Hutter 2017).

``lr(s) = lr_max · s / W`` for ``s < W``, then
``lr_min + ½ (lr_max − lr_min) (1 + cos π (s − W) / (S − W))``. Step 0 of a warm-up has rate 0 and
moves nothing; the peak is reached at ``s = W``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.errors import ConfigurationError


@dataclass(frozen=True)
class WarmupCosine:
    """A schedule over the steps that are really planned.

    Attributes:
        lr_max: the peak.
        warmup_steps: W, from 0 to total_steps.
        total_steps: S, optimizer steps.
        lr_min: where the cosine ends, at step S.
    """

    lr_max: float
    warmup_steps: int
    total_steps: int
    lr_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise ConfigurationError(
                f"warm-up of {self.warmup_steps} steps does not fit in {self.total_steps} steps; "
                "pass a shorter --warmup"
            )

    def __call__(self, step: int) -> float:
        """Learning rate of optimizer step `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.lr_max * step / self.warmup_steps
        decay_steps = max(1, self.total_steps - self.warmup_steps)
        progress = (step - self.warmup_steps) / decay_steps
        return self.lr_min + 0.5 * (self.lr_max - self.lr_min) * (1 + math.cos(math.pi * progress))
