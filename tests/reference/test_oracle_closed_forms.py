"""The oracle's parameter counts and known losses, against published numbers and simulation."""

from __future__ import annotations

import math

import pytest
import torch

from falsifiers.reference.counts import nominal_parameters, stored_parameters
from falsifiers.reference.entropy import (
    expected_initial_loss,
    initial_logit_variance,
    margin_cross_entropy,
)
from falsifiers.reference.operators import token_losses


def shape(**fields: int) -> dict[str, int]:
    names = "hidden_size num_layers num_heads num_kv_heads head_dim intermediate_size vocab_size"
    defaults = {"attention_bias": False, "tie_word_embeddings": True}
    return dict(zip(names.split(), fields["sizes"], strict=True)) | defaults


LLAMA_370M = shape(sizes=(1024, 24, 16, 4, 64, 2816, 50257))
QWEN2_0_5B = shape(sizes=(896, 24, 14, 2, 64, 4864, 151936)) | {"attention_bias": True}
SMOLLM2_135M = shape(sizes=(576, 30, 9, 3, 64, 1536, 49152))


@pytest.mark.parametrize(
    ("config", "stored"),
    [(LLAMA_370M, 322_045_952), (QWEN2_0_5B, 494_032_768), (SMOLLM2_135M, 134_515_008)],
    ids=["llama-370m", "qwen2-0.5b", "smollm2-135m"],
)
def test_stored_counts_are_the_published_ones(config, stored):
    """Exactly; and untying the head adds one embedding, which is the nominal count."""
    embedding = config["vocab_size"] * config["hidden_size"]
    untied = config | {"tie_word_embeddings": False}
    assert stored_parameters(config) == stored
    assert nominal_parameters(config) == stored + embedding
    assert stored_parameters(untied) == nominal_parameters(untied) == stored + embedding


def test_the_nominal_count_of_llama_370m_is_exact():
    """The number that the model is named after."""
    assert nominal_parameters(LLAMA_370M) == 373_509_120


def test_counts_equal_the_tensors_of_transformers(judge):
    """Biases, wide heads and tying included."""
    assert stored_parameters(judge.config) == sum(p.numel() for p in judge.parameters.values())


def test_random_logits_lose_as_much_as_the_closed_form_says():
    """N(0, σ²) logits over a real vocabulary: within six standard errors of ln V + σ²/2."""
    vocab, rows = 50257, 400
    variance = initial_logit_variance(1024, 0.02)
    generator = torch.Generator().manual_seed(0)
    logits = math.sqrt(variance) * torch.randn(rows, vocab, generator=generator)
    losses = token_losses(logits, torch.randint(vocab, (rows,), generator=generator))
    error = abs(losses.mean().item() - expected_initial_loss(vocab, variance))
    assert error <= 6 * math.sqrt(variance / rows)
    # The spread of a token's loss is that of its target's logit.
    assert losses.std().item() == pytest.approx(math.sqrt(variance), rel=0.2)


def test_the_expected_initial_loss_of_llama_370m_is_eleven():
    """10.825 for the uniform part and 0.205 for the spread of the logits."""
    variance = initial_logit_variance(1024, 0.02)
    assert expected_initial_loss(50257, variance) == pytest.approx(11.0297, abs=5e-5)


@pytest.mark.parametrize("margin", [-800.0, -3.0, 0.0, 0.5, 20.0, 800.0])
def test_the_loss_of_constructed_logits_is_known(margin):
    """One target stands out by a margin: up to overflow either way, to float64 rounding."""
    logits = torch.zeros(1, 1000, dtype=torch.float64)
    logits[0, 7] = margin
    loss = token_losses(logits, torch.tensor([7])).item()
    # log_softmax subtracts ln V-sized numbers: a loss near zero is good to 1e-14 absolute.
    assert loss == pytest.approx(margin_cross_entropy(1000, margin), rel=1e-14, abs=1e-14)


def test_without_a_margin_the_loss_is_ln_vocab():
    """A uniform prediction."""
    assert margin_cross_entropy(151936, 0.0) == pytest.approx(11.9312, abs=5e-5)
    assert margin_cross_entropy(151936, 0.0) == pytest.approx(math.log(151936), rel=1e-15)
