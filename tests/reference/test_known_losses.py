"""The oracle's token losses where a formula says what they are."""

from __future__ import annotations

import math

import pytest
import torch

from falsifiers.reference.operators import token_losses


@pytest.mark.parametrize("margin", [-800.0, -3.0, 0.0, 0.5, 20.0, 800.0])
def test_the_loss_of_constructed_logits_is_known(margin):
    """One target stands out by a margin: up to overflow either way, to float64 rounding."""
    others, logits = 999, torch.zeros(1, 1000, dtype=torch.float64)
    logits[0, 7] = margin
    known = math.log1p(others * math.exp(-margin)) if margin > 0 else None
    if known is None:  # the same with the largest term taken out
        known = math.log(others) - margin + math.log1p(math.exp(margin) / others)
    # log_softmax subtracts ln V-sized numbers: a loss near zero is good to 1e-14 absolute.
    assert token_losses(logits, torch.tensor([7])).item() == pytest.approx(
        known, rel=1e-14, abs=1e-14
    )


def test_random_logits_lose_half_their_variance_more_than_ln_vocab():
    """N(0, σ²) over a real vocabulary: within six standard errors of ln V + σ²/2."""
    vocab, rows, variance = 50257, 400, 1024 * 0.02**2
    generator = torch.Generator().manual_seed(0)
    logits = math.sqrt(variance) * torch.randn(rows, vocab, generator=generator)
    losses = token_losses(logits, torch.randint(vocab, (rows,), generator=generator))
    error = abs(losses.mean().item() - (math.log(vocab) + variance / 2))
    assert error <= 6 * math.sqrt(variance / rows)
    # The spread of a token's loss is that of its target's logit.
    assert losses.std().item() == pytest.approx(math.sqrt(variance), rel=0.2)


@pytest.mark.parametrize("offset", [-1e6, 1e3, 3e38])
def test_a_common_offset_changes_no_token_loss(offset):
    """Equal logits cost ln V at any size: the largest is subtracted before anything is summed."""
    logits = torch.full((1, 1000), offset, dtype=torch.float64)
    assert token_losses(logits, torch.tensor([7])).item() == pytest.approx(
        math.log(1000), rel=1e-14
    )
