"""Gradient norm, clipping, parameter groups and the schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainer import gradients
from trainer.config import ModelConfig
from trainer.errors import ConfigurationError
from trainer.model.decoder import Decoder
from trainer.optimizer import AdamW, build_optimizer
from trainer.schedule import WarmupCosine


def parameters_with_gradients(*values: list[float]) -> list[nn.Parameter]:
    """Parameters whose gradients are `values`."""
    found = []
    for value in values:
        parameter = nn.Parameter(torch.zeros(len(value)))
        parameter.grad = torch.tensor(value, dtype=torch.float32)
        found.append(parameter)
    return found


def test_norm_is_the_l2_norm_over_all_gradients_together() -> None:
    """(6, 0) and (0, 8) have norm 10."""
    assert gradients.global_norm(parameters_with_gradients([6, 0], [0, 8])).item() == 10.0


def test_norm_of_many_elements_is_exact() -> None:
    """Ten million ones have norm √1e7 to 1e-9; torch's own float32 sum is far off on a CPU."""
    parameter = nn.Parameter(torch.zeros(10_000_000))
    parameter.grad = torch.ones(10_000_000)
    assert gradients.global_norm([parameter]).item() == pytest.approx(math.sqrt(1e7), rel=1e-9)


def test_norm_ten_is_clipped_by_one_tenth() -> None:
    """The coefficient is limit / norm, of all gradients together."""
    norm = gradients.global_norm(parameters_with_gradients([6, 0], [0, 8]))
    assert gradients.clip_coefficient(norm).item() == 0.1
    assert gradients.clip_coefficient(norm, max_norm=5.0).item() == 0.5


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_norm_up_to_the_limit_is_left_alone(value: float) -> None:
    """For gradients of norm 1 or less, zero included, the coefficient is exactly one."""
    norm = gradients.global_norm(parameters_with_gradients([value]))
    assert gradients.clip_coefficient(norm).item() == 1.0


@pytest.mark.parametrize("loss", [1.0, math.nan, math.inf])
@pytest.mark.parametrize("norm", [1.0, math.nan, math.inf])
def test_a_step_is_usable_if_loss_and_norm_are_finite(loss: float, norm: float) -> None:
    """Either alone is enough to refuse a step."""
    usable = gradients.is_usable(torch.tensor(loss), torch.tensor(norm)).item()
    assert usable == (loss == norm == 1.0)


def optimizer_over(*values: list[float]) -> AdamW:
    """An optimizer of parameters, initially one, whose gradients are `values`."""
    parameters = parameters_with_gradients(*values)
    with torch.no_grad():
        for parameter in parameters:
            parameter.fill_(1.0)
    return AdamW([{"params": parameters, "weight_decay": 0.0}], lr=0.1)


def test_the_step_multiplies_gradients_by_the_coefficient() -> None:
    """First and second moment are those of the scaled gradient."""
    optimizer = optimizer_over([6, 0], [0, 8])
    optimizer.step(torch.tensor(0.1), torch.tensor(False))
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    squares = [state["exp_avg_sq"] for state in optimizer.state.values()]
    torch.testing.assert_close(moments[0], torch.tensor([0.06, 0.0]))
    torch.testing.assert_close(moments[1], torch.tensor([0.0, 0.08]))
    torch.testing.assert_close(squares[1], torch.tensor([0.0, 0.032]))


def test_a_halted_step_changes_nothing_at_all() -> None:
    """Weights, moments and count are bit for bit what they were, NaN in the gradient or not."""
    optimizer = optimizer_over([1.0, math.nan])
    (parameter,) = optimizer.param_groups[0]["params"]
    optimizer.step(torch.tensor(math.nan), torch.tensor(True))
    assert torch.equal(parameter, torch.ones(2))
    assert not any(value.any() for value in optimizer.state[parameter].values())


def test_the_rate_that_is_set_is_the_rate_of_the_step() -> None:
    """The first AdamW step of a parameter without decay is one rate, whatever the gradient."""
    optimizer = optimizer_over([3.0])
    optimizer.set_rate(0.25)
    optimizer.step(torch.tensor(1.0), torch.tensor(False))
    assert optimizer.param_groups[0]["params"][0].item() == pytest.approx(0.75, abs=1e-6)


def test_every_parameter_has_its_state_from_the_start(qwen2: ModelConfig) -> None:
    """Moments of its shape, zero, and a count of zero: a checkpoint of step 0 has all entries."""
    model = Decoder(qwen2)
    state = build_optimizer(model, 3e-4).state
    assert state.keys() == set(model.parameters())
    for parameter, entry in state.items():
        assert entry.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert entry["exp_avg"].shape == entry["exp_avg_sq"].shape == parameter.shape
        assert not any(value.any() for value in entry.values())


def test_decay_is_on_matrices_only(qwen2: ModelConfig) -> None:
    """Every parameter is in one group, matrices in the decayed one; the settings are fixed."""
    model = Decoder(qwen2)
    decayed, plain = build_optimizer(model, 3e-4).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(p) for p in model.parameters() if p.ndim == 2}
    assert {id(p) for p in plain["params"]} == {id(p) for p in model.parameters() if p.ndim == 1}
    for group in (decayed, plain):
        assert (group["lr"], group["betas"], group["eps"]) == (3e-4, (0.9, 0.95), 1e-8)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.0), (1, 0.1), (9, 0.9), (10, 1.0), (20, 0.55), (30, 0.1)]
)
def test_schedule_is_warm_up_then_half_a_cosine(step: int, rate: float) -> None:
    """Zero at step 0, the peak at the end of warm-up, the middle half-way, lr_min at the end."""
    assert WarmupCosine(1.0, 10, 30, lr_min=0.1)(step) == pytest.approx(rate, abs=1e-12)


def test_schedule_without_warm_up_starts_at_the_peak() -> None:
    """W = 0 divides by nothing."""
    assert WarmupCosine(2.0, 0, 5)(0) == 2.0


def test_warm_up_longer_than_the_run_is_refused() -> None:
    """Both numbers are named."""
    with pytest.raises(ConfigurationError, match="warm-up of 11 steps does not fit in 10"):
        WarmupCosine(1.0, 11, 10)
