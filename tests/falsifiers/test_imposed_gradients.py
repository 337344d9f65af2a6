"""Gradients that are imposed are what the optimizer gets, pass by pass."""

from __future__ import annotations

import pytest
import torch

from falsifiers.adapters.bundled import BundledSubject
from falsifiers.canary import _CONFIGURATION
from falsifiers.imposed_gradients import ImposedGradients, any_batch, drawn, of_norm


def test_norm_is_as_asked_for():
    """Over all tensors together, and not of each."""
    values = of_norm({"a": torch.ones(3, 4), "b": torch.full((5,), 7.0)}, 2.5)
    squares = sum(float(v.double().square().sum()) for v in values.values())
    assert squares**0.5 == pytest.approx(2.5, rel=1e-7)


def test_each_pass_has_its_own_and_the_last_one_stays():
    """Two micro-batches get two mappings, which add up; a third gets the second again. The tied
    table is used twice in a pass and replaced once."""
    instance = BundledSubject().build(_CONFIGURATION, device="cpu", dtype="float32", seed=0)
    imposed = ImposedGradients(instance)
    one = of_norm(drawn(instance.parameters(), 1), 0.1)
    two = of_norm(drawn(instance.parameters(), 2), 0.1)
    imposed.impose(one, two)
    instance.train_step([any_batch(_CONFIGURATION, seed) for seed in range(3)])
    for name, moments in instance.optimizer_state().items():
        torch.testing.assert_close(moments.exp_avg, 0.1 * (one[name] + two[name] + two[name]))
