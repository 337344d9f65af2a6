"""The peer is transformers with the weights that it is given, all of them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from falsifiers.subject import Batch
from falsifiers.transformers_peer import Optimization, TransformersPeer
from falsifiers.weight_files import random_weights

CONFIG = {
    "architecture": "llama",
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 8,
    "intermediate_size": 24,
    "vocab_size": 40,
    "max_position_embeddings": 32,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "tie_word_embeddings": True,
}
BATCH = Batch(torch.arange(24).reshape(2, 12) % 40, torch.arange(22).reshape(2, 11) % 3 > 0)


def test_weights_that_are_not_all_the_models_are_refused() -> None:
    """What is left at random would be compared as well."""
    weights = random_weights(CONFIG, 0)
    del weights["model.norm.weight"]
    with pytest.raises(ValueError, match=r"model\.norm\.weight"):
        TransformersPeer(CONFIG, weights, "cpu")


def test_the_loss_is_the_mean_over_the_targets_that_count() -> None:
    """As the plain formula on its own logits says."""
    peer = TransformersPeer(CONFIG, random_weights(CONFIG, 0), "cpu")
    logits = peer.logits(BATCH.tokens[:, :-1]).double()
    counting = BATCH.target_mask
    exact = cross_entropy(logits[counting], BATCH.tokens[:, 1:][counting])
    loss, gradients = peer.loss_and_gradients(BATCH)
    assert loss == pytest.approx(exact.item(), rel=1e-12)
    assert gradients.keys() == peer.parameters().keys()


def test_a_step_moves_the_weights_that_the_next_loss_sees() -> None:
    """Decay alone moves matrices where the rate is tiny, and the loss falls where it is not."""
    peer = TransformersPeer(CONFIG, random_weights(CONFIG, 0), "cpu")
    steps = Optimization(peer, betas=(0.9, 0.95), eps=1e-8, decay=0.1, clip=1.0)
    losses = [steps.step(BATCH, 0.01)[0] for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert peer.loss_and_gradients(BATCH)[0] < losses[-1]
