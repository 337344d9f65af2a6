"""Inputs that claims are tried on: repeatable, varied, and moved off every special value."""

from __future__ import annotations

import math

import pytest
import torch

from falsifiers.inputs import (
    joined,
    mostly_masked,
    ragged_batch,
    random_batch,
    random_tokens,
    roughen,
    unequal_micro_batches,
)


def test_tokens_follow_the_seed_alone(qwen2):
    """One seed gives the same ids whatever the global generator does; another seed does not."""
    first = random_tokens(qwen2, 3, 20, seed=4)
    torch.manual_seed(99)
    assert torch.equal(first, random_tokens(qwen2, 3, 20, seed=4))
    assert not torch.equal(first, random_tokens(qwen2, 3, 20, seed=5))


def test_making_inputs_leaves_the_global_generator_alone(qwen2, rough):
    """A falsifier that bracketed random state would otherwise blame the trainer."""
    instance = rough(qwen2)
    before = torch.get_rng_state()
    ragged_batch(qwen2, 4, 16, 0)
    roughen(instance, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_tokens_cover_the_vocabulary_and_nothing_else(qwen2):
    """Uniform ids: at least 32 distinct in a prompt of 64, all below the vocabulary's size."""
    tokens = random_tokens(qwen2, 4, 2000, seed=0)
    assert tokens.dtype == torch.int64
    assert tokens.min().item() == 0
    assert tokens.max().item() == qwen2["vocab_size"] - 1
    assert tokens[0, :64].unique().numel() >= 32


def test_a_random_batch_has_one_more_token_than_targets(qwen2):
    """Position t predicts token t + 1, so `length` targets need length + 1 tokens."""
    batch = random_batch(qwen2, 2, 16, 0)
    assert batch.tokens.shape == (2, 17)
    assert batch.target_mask is None


@pytest.mark.parametrize("seed", range(5))
def test_ragged_batches_hold_both_extremes(qwen2, seed):
    """One sequence with a single target, one full: a wrong weighting cannot hide between them."""
    mask = ragged_batch(qwen2, 4, 24, seed).target_mask
    counts = mask.sum(dim=1).tolist()
    assert counts[0] == 1
    assert counts[-1] == 24
    assert all(1 <= count <= 24 for count in counts)
    assert torch.equal(mask, mask.cummin(dim=1).values), "a sequence ends once"


def test_ragged_batches_follow_the_seed(qwen2):
    """Tokens and mask are the same again, and others under another seed."""
    first, again, other = (ragged_batch(qwen2, 6, 24, seed) for seed in (0, 0, 1))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.target_mask, again.target_mask)
    assert not torch.equal(first.tokens, other.tokens)
    assert not torch.equal(first.target_mask, other.target_mask)


def test_mostly_masked_keeps_at_most_a_quarter(qwen2):
    """Tokens stay; targets past the first quarter count no more, the given batch is untouched."""
    batch = ragged_batch(qwen2, 4, 24, 0)
    before = batch.target_mask.clone()
    masked = mostly_masked(batch)
    assert torch.equal(masked.tokens, batch.tokens)
    assert torch.equal(batch.target_mask, before)
    assert not masked.target_mask[:, 6:].any()
    assert torch.equal(masked.target_mask[:, :6], before[:, :6])


def test_roughen_moves_every_parameter(subject, qwen2):
    """No parameter keeps a special value: norms leave one, biases leave zero, each element."""
    instance = subject.build(qwen2, device="cpu", dtype="float32", seed=0)
    before = {n: p.clone() for n, p in instance.parameters().items()}
    roughen(instance, 0)
    for name, value in instance.parameters().items():
        moved = (value != before[name]).double().mean().item()
        assert moved > 0.99, f"{name}: {1 - moved:.0%} of its elements stayed"


def test_roughen_follows_seed_and_scale(subject, qwen2):
    """Vectors move by about `scale`, matrices by a fiftieth of it, the same way for one seed."""

    def moved(seed: int, scale: float) -> dict[str, torch.Tensor]:
        instance = subject.build(qwen2, device="cpu", dtype="float32", seed=0)
        start = {n: p.clone() for n, p in instance.parameters().items()}
        roughen(instance, seed, scale)
        return {n: p - start[n] for n, p in instance.parameters().items()}

    first, again, other = moved(3, 0.4), moved(3, 0.4), moved(4, 0.4)
    matrix, vector = "model.layers.1.mlp.up_proj.weight", "model.norm.weight"
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not any(torch.equal(first[n], other[n]) for n in first)
    # Deviation of n normal draws scatters by 1 / sqrt(2 n); six of those.
    for name, size in ((matrix, 0.008), (vector, 0.4)):
        scatter = 6 / math.sqrt(2 * first[name].numel())
        assert first[name].std().item() == pytest.approx(size, rel=scatter)


def test_micro_batches_are_unequal(qwen2):
    """Each counts fewer targets than the one before, none has none, and the seed decides."""
    batches = unequal_micro_batches(qwen2, 4, 64, 0)
    targets = [batch.targets for batch in batches]
    assert targets == sorted(targets, reverse=True)
    assert targets[0] > 2 * targets[-1] > 0
    again = unequal_micro_batches(qwen2, 4, 64, 0)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(batches, again, strict=True))
    assert not torch.equal(batches[0].tokens, batches[1].tokens)


def test_joined_batches_are_their_sequences_in_order(qwen2):
    """Tokens and masks of all, so that every target that counted counts once."""
    batches = unequal_micro_batches(qwen2, 3, 16, 0)
    whole = joined(batches)
    assert whole.targets == sum(batch.targets for batch in batches)
    assert torch.equal(whole.tokens[3:6], batches[1].tokens)
    assert whole.target_mask is not None and batches[1].target_mask is not None
    assert torch.equal(whole.target_mask[3:6], batches[1].target_mask)
