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
from trainer.optimizer import build_optimizer
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
    """The coefficient is limit / norm, on every gradient alike."""
    parameters = parameters_with_gradients([6, 0], [0, 8])
    gradients.clip(parameters, gradients.global_norm(parameters), max_norm=1.0)
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.0, 0.8]))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_norm_up_to_the_limit_is_left_alone(value: float) -> None:
    """Gradients of norm 1 or less, zero included, keep their bits."""
    parameters = parameters_with_gradients([value])
    gradients.clip(parameters, gradients.global_norm(parameters), max_norm=1.0)
    assert parameters[0].grad is not None and parameters[0].grad.item() == value


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
