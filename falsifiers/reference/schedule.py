"""Learning rate by step: linear warm-up, then half a cosine (Loshchilov & Hutter 2017)."""

from __future__ import annotations

import math

from .errors import OracleInputError


def learning_rate(
    step: int, *, lr_max: float, lr_min: float, warmup_steps: int, total_steps: int
) -> float:
    """The rate that optimizer step `step`, counted from 0, is taken with.

    ``lr_max·s/W`` for s < W, else ``lr_min + (lr_max - lr_min)/2 · (1 + cos π(s - W)/(S - W))``:
    step 0 of a warm-up moves nothing, step W is the peak, and lr_min is met at S.

    Raises:
        OracleInputError: not 0 <= W < S, or not 0 <= s <= S.
    """
    if not 0 <= warmup_steps < total_steps:
        raise OracleInputError(
            f"warmup_steps {warmup_steps} of total_steps {total_steps}: 0 <= warm-up < total"
        )
    if not 0 <= step <= total_steps:
        raise OracleInputError(f"step {step} is outside 0..{total_steps}, the planned steps")
    if step < warmup_steps:
        return lr_max * step / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return lr_min + 0.5 * (lr_max - lr_min) * (1.0 + math.cos(math.pi * progress))
