"""The oracle's model, loss and gradients against transformers' Llama and Qwen2 in float64.

Tolerance of every comparison here: 1e-12 relative L2. Both sides round each of some hundred
thousand operations to float64 (2e-16); the measured difference is below 3e-15, and the smallest
deliberate fault tried changes the result by more than 1e-6.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from falsifiers.reference.errors import OracleInputError
from falsifiers.reference.gradients import global_norm, loss_and_gradients
from falsifiers.reference.loss import mean_loss
from falsifiers.reference.model import logits

ROUNDING = 1e-12


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.dtype == theirs.dtype == torch.float64
    assert ours.shape == theirs.shape
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.fixture
def tokens(judge) -> Tensor:
    """int64 [2, 14], random."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(judge.config["vocab_size"], (2, 14), generator=generator)


@pytest.fixture
def mask() -> Tensor:
    """bool [2, 13], keeping five targets of one row and all of the other."""
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[0, 5:] = False
    return mask


def test_logits_equal_those_of_transformers(judge, tokens):
    """Same parameters, same tokens: the same logits."""
    ours = logits(judge.parameters, judge.config, tokens)
    assert relative_difference(ours, judge.logits(tokens)) <= ROUNDING


def test_loss_equals_that_of_transformers(judge, tokens, mask):
    """The shifted mean over the targets, with and without a mask."""
    for kept in (None, mask):
        ours = mean_loss(judge.parameters, judge.config, tokens, kept)
        assert relative_difference(ours, judge.loss(tokens, kept).detach()) <= ROUNDING


def test_every_gradient_equals_that_of_transformers(judge, tokens, mask):
    """The gradient of each parameter, a tied embedding included."""
    loss, gradients = loss_and_gradients(judge.parameters, judge.config, tokens, mask)
    judge.model.zero_grad()
    theirs = judge.loss(tokens, mask)
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=ROUNDING)
    expected = {name: p.grad for name, p in judge.model.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert relative_difference(gradient, expected[name]) <= ROUNDING, name
    norm = torch.nn.utils.get_total_norm(expected.values())
    assert global_norm(gradients) == pytest.approx(norm.item(), rel=ROUNDING)


def test_loss_changes_along_a_direction_as_its_gradient_says(judge, tokens):
    """A central difference of step h errs by h²·f''' plus rounding/h: 1e-10 each at h = 1e-5.

    The bound, 1e-6 relative, leaves room for the third derivative of a sharp random model.
    """
    generator = torch.Generator().manual_seed(2)
    parameters = judge.parameters
    direction = {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for name, p in parameters.items()
    }
    length = global_norm(direction)
    h = 1e-5

    def moved(by: float) -> float:
        there = {n: p + by * direction[n] / length for n, p in parameters.items()}
        return mean_loss(there, judge.config, tokens).item()

    _, gradients = loss_and_gradients(parameters, judge.config, tokens)
    slope = sum((gradients[n] * direction[n]).sum().item() for n in gradients) / length
    assert (moved(h) - moved(-h)) / (2 * h) == pytest.approx(slope, rel=1e-6)


def test_logits_do_not_depend_on_the_future(judge, tokens):
    """Changing the last token changes the last position's logits only, to the last bit."""
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % judge.config["vocab_size"]
    before = logits(judge.parameters, judge.config, tokens)
    after = logits(judge.parameters, judge.config, changed)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_float32_parameters_are_judged_in_float64(judge, tokens):
    """float32 parameters give exactly what the same values in float64 give."""
    narrow = {name: p.to(torch.float32) for name, p in judge.parameters.items()}
    wide = {name: p.to(torch.float64) for name, p in narrow.items()}
    ours = logits(narrow, judge.config, tokens)
    assert ours.dtype == torch.float64
    assert torch.equal(ours, logits(wide, judge.config, tokens))


def test_a_missing_surplus_or_misshapen_parameter_is_refused_by_name(judge, tokens):
    """The oracle never guesses: each parameter must be the one the configuration implies."""
    name = "model.layers.1.self_attn.k_proj.weight"
    without = {n: p for n, p in judge.parameters.items() if n != name}
    head = {"lm_head.weight": judge.parameters["model.embed_tokens.weight"]}
    tied = judge.config["tie_word_embeddings"]
    faults = {
        f"missing \\['{name}'\\]": without,
        r"surplus \['model.layers.1.self_attn.o_proj.bias'\]": judge.parameters
        | {"model.layers.1.self_attn.o_proj.bias": torch.zeros(3)},
        f"wrong shape \\['{name} is \\(2, 2\\)": judge.parameters | {name: torch.zeros(2, 2)},
        ("surplus" if tied else "missing") + r" \['lm_head.weight'\]": judge.parameters | head
        if tied
        else {n: p for n, p in judge.parameters.items() if n != "lm_head.weight"},
    }
    for message, parameters in faults.items():
        with pytest.raises(OracleInputError, match=message):
            logits(parameters, judge.config, tokens)


def test_a_batch_without_targets_is_refused(judge, tokens):
    """A mean over no target does not exist, and a mask of another length masks something else."""
    nothing, short = torch.zeros(2, 13, dtype=torch.bool), torch.ones(2, 12, dtype=torch.bool)
    faults = {
        "keeps no target": (tokens, nothing),
        r"mask is \(2, 12\); the targets are \(2, 13\)": (tokens, short),
        r"tokens are \(2, 1\)": (tokens[:, :1], None),
        r"tokens are \(0, 14\)": (tokens[:0], None),
    }
    for message, (batch, mask) in faults.items():
        with pytest.raises(OracleInputError, match=message):
            mean_loss(judge.parameters, judge.config, batch, mask)
