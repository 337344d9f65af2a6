"""Where a defect says it is in force: also where only gradients differ, and not before it acts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aprverify.planting import Plant, load_defects
from falsifiers.adapters.bundled import BundledSubject
from falsifiers.defects.slopes import spoiled_by
from falsifiers.inputs import random_batch
from falsifiers.subject import SubjectRefused
from falsifiers.suite import SUITE

DEFECTS = load_defects(SUITE)


def _clean(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x.clamp(max=1.0) * y


def _spoil(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 1.0, x, x.detach().clamp(max=1.0)) * y


@pytest.mark.parametrize(
    ("at", "told"),
    [(0.5, [False, False]), (1.0, [False, True]), (1.5, [False, False])],
    ids=["alike", "another slope", "both flat"],
)
def test_a_value_that_is_right_may_have_a_wrong_slope(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, at: float, told: list[bool]
) -> None:
    """At the kink the clean function passes its gradient on, and the other one does not."""
    effects: list[bool] = []
    monkeypatch.setattr(plant, "effect", effects.append)
    x = torch.tensor([at], requires_grad=True)
    spoiled_by(plant, _clean, _spoil, x, torch.tensor([2.0])).backward(torch.ones(1))
    assert effects == told
    assert x.grad is not None and x.grad.item() == (2.0 if at < 1.0 else 0.0)


def test_another_value_is_told_at_once_and_only_once(plant: Plant) -> None:
    """Then nobody needs the gradient to know."""
    x = torch.ones(2, requires_grad=True)
    spoiled_by(plant, _clean, lambda x, y: x * y + 1, x, x.detach()).sum().backward()
    assert (plant.reached, plant.changed) == (1, 1)


@pytest.mark.parametrize("name", ["drop-q-bias-one", "drop-v-bias-all"])
def test_a_dropped_bias_of_zero_shows_in_its_gradient(name: str, qwen2: dict[str, Any]) -> None:
    """As at the start of training: no logit differs, and the bias will never move."""
    plant = _planted(name)
    try:
        instance = BundledSubject().build(qwen2, device="cpu", dtype="float32", seed=0)
        assert not any(p.any() for n, p in instance.parameters().items() if n.endswith("bias"))
        batch = random_batch(qwen2, 1, 4, 0)
        instance.logits(batch.tokens)
        assert plant.changed == 0 < plant.reached
        _, gradients = instance.loss_and_gradients(batch)
        assert plant.changed > 0
        last = qwen2["num_layers"] - 1
        assert not gradients[f"model.layers.{last}.self_attn.{name[5]}_proj.bias"].any()
    finally:
        plant.leave()


def test_a_check_that_is_taken_out_lets_sound_models_be_built(qwen2: dict[str, Any]) -> None:
    """What stands for the model that nobody wants to build comes only where it was refused."""
    subject = BundledSubject()
    refused: dict[str, Any] = {
        "device": "cpu",
        "dtype": "float32",
        "seed": 0,
        "from_scratch": qwen2,
    }
    with pytest.raises(SubjectRefused):
        subject.build_pretrain(**refused)
    plant = _planted("count-check-removed")
    try:
        with pytest.raises(AttributeError):
            subject.build_pretrain(**refused).parameters()
        assert plant.changed == 1
        assert subject.build(qwen2, device="cpu", dtype="float32", seed=0).parameters()
    finally:
        plant.leave()


@pytest.mark.parametrize("name", ["device-checked-late", "device-checked-after-mkdir"])
def test_asking_for_a_device_makes_no_folder(name: str) -> None:
    """Only a command with a run directory can make it too early."""
    plant = _planted(name)
    try:
        assert BundledSubject().resolve_device("cpu") == "cpu"
        assert (plant.reached, plant.changed) == (1, 0)
    finally:
        plant.leave()


def _planted(name: str) -> Plant:
    plant = Plant(DEFECTS[name])
    DEFECTS[name].plant(plant)
    return plant
