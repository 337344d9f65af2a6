"""Losses that are known in closed form: random initialisation, and constructed logits."""

from __future__ import annotations

import math


def initial_logit_variance(hidden_size: int, head_std: float) -> float:
    """Variance of fresh logits, ``H·std²``: hidden states of unit RMS times rows of N(0, std²)."""
    return hidden_size * head_std**2


def expected_initial_loss(vocab_size: int, logit_variance: float) -> float:
    """Expected loss of independent normal logits, nats: ``ln V + σ²/2``.

    The mean of exp(logit) is exp(σ²/2) and the target's logit is zero on average; what the
    finite vocabulary takes off is ``(exp(σ²) - 1)/2V``, under 1e-5 for the sizes trained here.
    """
    return math.log(vocab_size) + logit_variance / 2


def margin_cross_entropy(vocab_size: int, margin: float) -> float:
    """Loss of logits that are all equal but the target's, which is `margin` above, nats.

    ``ln(1 + (V - 1)·exp(-margin))``: ln V at margin 0, falling to 0 for a dominant target, and
    close to -margin + ln(V - 1) for a target far below.
    """
    if margin < 0:
        return -margin + math.log(vocab_size - 1 + math.exp(margin))
    return math.log1p((vocab_size - 1) * math.exp(-margin))
