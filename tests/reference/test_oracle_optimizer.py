"""The oracle's AdamW, clipping and schedule against torch's, transformers' and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from falsifiers.reference import adamw
from falsifiers.reference.errors import OracleInputError
from falsifiers.reference.gradients import loss_and_gradients
from falsifiers.reference.schedule import learning_rate

SETTINGS = adamw.AdamWSettings(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
SCHEDULE = {"lr_max": 0.02, "lr_min": 0.0, "warmup_steps": 3, "total_steps": 10}


def test_ten_steps_equal_transformers_trained_with_torch(judge):
    """Model, gradients, clipping, schedule and AdamW together, each side its own throughout.

    float64 rounding (1e-15) of a gradient is amplified by up to 1/eps = 1e8 where the gradient
    is smaller than eps, times the rate 0.02: 1e-9 relative is above that and far below any fault.
    """
    parameters = judge.parameters
    initial = {name: p.clone() for name, p in parameters.items()}
    ours, state = dict(initial), adamw.initial_state(initial)
    groups = [
        {"params": [p for p in judge.model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in judge.model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    generator = torch.Generator().manual_seed(3)
    for index in range(10):
        tokens = torch.randint(judge.config["vocab_size"], (2, 9), generator=generator)
        lr = learning_rate(index, **SCHEDULE)

        loss, gradients = loss_and_gradients(ours, judge.config, tokens)
        clipped, norm = adamw.clip_by_global_norm(gradients, 1.0)
        ours, state = adamw.step(ours, clipped, state, SETTINGS, lr)

        optimizer.zero_grad()
        their_loss = judge.loss(tokens)
        their_loss.backward()
        theirs = [p.grad for p in judge.model.parameters()]
        their_norm = torch.nn.utils.get_total_norm(theirs).item()
        for gradient in theirs:
            gradient.mul_(min(1.0, 1.0 / their_norm))
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        assert loss == pytest.approx(their_loss.item(), rel=1e-9)
        assert norm == pytest.approx(their_norm, rel=1e-9)

    for name, parameter in judge.model.named_parameters():
        moved = (parameter.detach() - initial[name]).norm()
        assert moved > 0
        assert (ours[name] - parameter.detach()).norm() <= 1e-9 * moved, name


def test_a_step_changes_nothing_in_place():
    """Parameters, gradients and the earlier state can be used again."""
    parameter, gradient = {"w": torch.ones(2, 2)}, {"w": torch.ones(2, 2)}
    state = adamw.initial_state(parameter)
    adamw.step(parameter, gradient, state, SETTINGS, 0.1)
    assert torch.equal(parameter["w"], torch.ones(2, 2))
    assert torch.equal(gradient["w"], torch.ones(2, 2))
    assert (state.step, state.exp_avg["w"].norm().item()) == (0, 0.0)


def test_the_first_step_is_the_sign_of_the_gradient_and_matrices_also_decay():
    """Bias correction makes step 1 exactly lr·g/(|g| + eps); decay is lr·0.1·w on a matrix."""
    start = {"matrix": torch.full((1, 2), 2.0), "vector": torch.full((2,), 2.0)}
    gradient = {"matrix": torch.tensor([[3.0, -0.5]]), "vector": torch.tensor([3.0, -0.5])}
    after, _ = adamw.step(start, gradient, adamw.initial_state(start), SETTINGS, 0.1)
    # eps shortens the step by eps/|g| <= 2e-8 relative of 0.1.
    expected = torch.tensor([1.9, 2.1], dtype=torch.float64)
    torch.testing.assert_close(after["vector"], expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(after["matrix"], expected[None] - 0.02, rtol=0, atol=1e-8)


def test_eps_stands_outside_the_root():
    """With |g| = eps the first step is half a rate; inside the root it would be 1e-4 of one."""
    start, gradient = {"w": torch.zeros(1)}, {"w": torch.full((1,), 1e-8, dtype=torch.float64)}
    after, _ = adamw.step(start, gradient, adamw.initial_state(start), SETTINGS, 1.0)
    assert after["w"].item() == pytest.approx(-0.5, rel=1e-12)


def test_names_that_differ_are_refused():
    """A parameter without a gradient would silently stay."""
    start = {"w": torch.zeros(1)}
    with pytest.raises(OracleInputError, match=r"\['v'\]"):
        gradients = start | {"v": torch.zeros(1)}
        adamw.step(start, gradients, adamw.initial_state(start), SETTINGS, 1.0)


@pytest.mark.parametrize("max_norm", [1.0, 10.0, 20.0])
def test_clipping_scales_by_the_norm_over_all_tensors(max_norm):
    """Norm 10 at limit 1 is scaled by 0.1 exactly; a norm within the limit is left alone."""
    gradients = {"a": torch.tensor([6.0]), "b": torch.tensor([[0.0, 8.0]])}
    clipped, norm = adamw.clip_by_global_norm(gradients, max_norm)
    scale = min(1.0, max_norm / 10.0)
    assert norm == 10.0
    assert clipped["a"].item() == pytest.approx(6.0 * scale, rel=1e-15)
    assert clipped["b"][0, 1].item() == pytest.approx(8.0 * scale, rel=1e-15)


def test_clipping_refuses_a_norm_that_is_not_finite_and_accepts_zero():
    """NaN and infinity have no coefficient; zero gradients stay zero."""
    for bad in (math.nan, math.inf):
        with pytest.raises(OracleInputError, match=str(bad)):
            adamw.clip_by_global_norm({"a": torch.tensor([1.0, bad])}, 1.0)
    clipped, norm = adamw.clip_by_global_norm({"a": torch.zeros(2)}, 1.0)
    assert norm == 0.0 and torch.equal(clipped["a"], torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize(("warmup", "total"), [(0, 7), (3, 10), (1, 2)])
def test_the_schedule_equals_that_of_transformers(warmup, total):
    """Every step of transformers' cosine schedule with warm-up, to float64 rounding."""
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.02)
    theirs = get_cosine_schedule_with_warmup(optimizer, warmup, total)
    for index in range(total + 1):
        ours = learning_rate(index, lr_max=0.02, lr_min=0.0, warmup_steps=warmup, total_steps=total)
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-14, abs=1e-17)
        optimizer.step()
        theirs.step()


def test_the_schedule_meets_its_corner_points():
    """0 at step 0, the peak at W, the mean half-way down, lr_min at S."""
    points = {0: 0.0, 2: 0.5, 4: 1.0, 9: 0.6, 14: 0.2}
    for index, rate in points.items():
        ours = learning_rate(index, lr_max=1.0, lr_min=0.2, warmup_steps=4, total_steps=14)
        assert ours == pytest.approx(rate, rel=1e-15)


@pytest.mark.parametrize(("index", "warmup", "total"), [(-1, 0, 5), (6, 0, 5), (0, 5, 5)])
def test_a_step_outside_the_plan_is_refused(index, warmup, total):
    """There is no rate before the first step, after the last, or without a decay."""
    with pytest.raises(OracleInputError):
        learning_rate(index, lr_max=1.0, lr_min=0.0, warmup_steps=warmup, total_steps=total)
