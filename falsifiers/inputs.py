"""Token sequences and perturbed weights that claims are tried on, from local seeded generators.

Prompts vary on purpose: with one token repeated, attention returns the same value whatever q, k,
RoPE, scale and mask are, so faults in those could not be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from falsifiers.subject import Batch, Instance


def random_tokens(config: Mapping[str, Any], batch: int, length: int, seed: int) -> Tensor:
    """Uniform int64 token ids ``[batch, length]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config["vocab_size"], (batch, length), generator=generator)


def random_batch(config: Mapping[str, Any], batch: int, length: int, seed: int) -> Batch:
    """A batch of `length` targets a sequence, all of which count."""
    return Batch(random_tokens(config, batch, length + 1, seed))


def ragged_batch(config: Mapping[str, Any], batch: int, length: int, seed: int) -> Batch:
    """A batch whose sequences end early: between 1 and `length` targets each count."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (batch, 1), generator=generator)
    lengths[0], lengths[-1] = 1, length  # the extremes, so that wrong weighting cannot hide
    mask = torch.arange(length)[None, :] < lengths
    return Batch(random_tokens(config, batch, length + 1, seed + 1), mask)


def unequal_micro_batches(
    config: Mapping[str, Any], count: int, length: int, seed: int
) -> list[Batch]:
    """`count` ragged batches of three sequences, each with about half the targets of the last."""
    batches = []
    for index in range(count):
        batch = ragged_batch(config, 3, length, seed + 2 * index)
        assert batch.target_mask is not None
        mask = batch.target_mask.clone()
        mask[:, max(1, length >> index) :] = False
        batches.append(Batch(batch.tokens, mask))
    return batches


def joined(batches: Sequence[Batch]) -> Batch:
    """The sequences of several masked batches of one length as one batch."""
    masks = [batch.target_mask for batch in batches if batch.target_mask is not None]
    return Batch(torch.cat([batch.tokens for batch in batches]), torch.cat(masks))


def distinct_ids(tokens: Tensor) -> int:
    """How many different ids occur."""
    return len(set(tokens.flatten().tolist()))


def mostly_masked(batch: Batch) -> Batch:
    """The same tokens with at most a quarter of the positions counting, a varying number."""
    assert batch.target_mask is not None
    mask = batch.target_mask.clone()
    mask[:, mask.shape[1] // 4 :] = False
    return Batch(batch.tokens, mask)


def roughen(instance: Instance, seed: int, scale: float = 0.1) -> None:
    """Move every parameter off its special initial value, in place.

    Fresh norms are one and fresh biases zero: a norm that ignores its weight or a bias that is
    never added would not show.
    """
    parameters = instance.parameters()
    device = next(iter(parameters.values())).device  # half a billion draws take seconds on a CPU
    generator = torch.Generator(device).manual_seed(seed)
    values = {}
    for name, parameter in sorted(parameters.items()):
        noise = torch.randn(parameter.shape, generator=generator, device=device)
        size = scale if parameter.ndim == 1 else 0.02 * scale
        values[name] = parameter.to(device) + size * noise
    instance.set_parameters(values)
