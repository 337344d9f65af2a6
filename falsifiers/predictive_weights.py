"""Weights that predict a made-up text, so that a tiny model starts well below a random one.

In the text every token is followed by the next id, modulo the vocabulary. An untied head whose row
t + 1 is the embedding of t prefers that token: the loss is far from ln V and still far from 0,
where a relative error would say nothing. The layers hold random weights that the stream carries
through, so that they matter without deciding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from falsifiers.subject import Batch
from falsifiers.weight_files import random_weights


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration with a head of its own."""
    return {**config, "tie_word_embeddings": False}


def predictive_weights(config: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    """float32 tensors by name, for an `untied` configuration."""
    weights = random_weights(config, seed)
    shape = weights["model.embed_tokens.weight"].shape
    embedding = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))
    rows = embedding / embedding.norm(dim=1, keepdim=True)
    weights["model.embed_tokens.weight"] = embedding
    weights["lm_head.weight"] = rows.roll(1, dims=0)
    return weights


def successor_batch(config: Mapping[str, Any], batch: int, length: int, seed: int) -> Batch:
    """Rows of ascending ids, each from a random start; all of the `length` targets count."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(config["vocab_size"], (batch, 1), generator=generator)
    return Batch((start + torch.arange(length + 1)) % config["vocab_size"])
