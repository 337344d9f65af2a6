"""Wrappers pass everything on: what a protocol defect does not spoil is the clean subject's."""

from __future__ import annotations

from typing import Any

import pytest

from falsifiers import subject as protocol
from falsifiers.inputs import random_batch
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper, wrap_configuration, wrap_instances


class Recording:
    """Answers every call with the call."""

    def __getattr__(self, name: str) -> Any:
        def answer(*arguments: Any, **options: Any) -> Any:
            return name, arguments, options

        return answer


def public(of: type) -> list[str]:
    """The names that a protocol declares."""
    return sorted(name for name in vars(of) if not name.startswith("_"))


@pytest.mark.parametrize("name", public(protocol.Instance))
def test_an_instance_wrapper_passes_on(name, plant):
    """Every method and property of an instance arrives with its arguments and its result."""
    wrapper = InstanceWrapper(Recording(), plant)
    assert getattr(wrapper, name)(1, two=2) == (name, (1,), {"two": 2})


@pytest.mark.parametrize("name", [n for n in public(protocol.Subject) if "build" not in n])
def test_a_subject_wrapper_passes_on(name, plant):
    """Every method of a subject that builds nothing does the same."""
    wrapper = SubjectWrapper(Recording(), plant)
    assert getattr(wrapper, name)(1, two=2) == (name, (1,), {"two": 2})


class Wrapped(InstanceWrapper):
    """Told apart by its type."""


def test_built_instances_are_wrapped_once(plant):
    """`build` and `build_pretrain` pass every option on and wrap what comes back."""
    wrap_instances(plant, Wrapped)
    plant.subject.inner = Recording()
    places = {"device": "cpu", "dtype": "float32", "seed": 3}
    built = plant.subject.build({"a": 1}, **places, lr=0.5)
    assert type(built) is Wrapped
    assert built.inner == ("build", ({"a": 1},), {**places, "lr": 0.5})
    assert built.plant is plant
    built = plant.subject.build_pretrain(**places, init_path="x", from_scratch=None)
    assert type(built) is Wrapped
    assert built.inner == ("build_pretrain", (), {**places, "init_path": "x", "from_scratch": None})


def test_a_wrapper_alone_has_no_effect(plant):
    """An empty wrapper reports nothing, so it cannot pass for a defect in force."""
    wrap_instances(plant, Wrapped)
    plant.subject.resolve_device("cpu")
    assert (plant.reached, plant.changed) == (0, 0)


def test_a_wrapped_instance_computes_what_the_clean_one_does(subject, plant, qwen2):
    """The same step, bit for bit."""
    clean = subject.build(qwen2, device="cpu", dtype="float32", seed=0)
    wrap_instances(plant, Wrapped)
    wrapped = plant.subject.build(qwen2, device="cpu", dtype="float32", seed=0)
    batch = random_batch(qwen2, 2, 8, 0)
    first, second = clean.train_step(batch), wrapped.train_step(batch)
    assert (first.train_loss, first.grad_norm) == (second.train_loss, second.grad_norm)
    assert wrapped.config == qwen2


@pytest.mark.parametrize(("eps", "changed"), [(1e-5, 1), (1e-6, 0)])
def test_a_configuration_is_replaced_and_the_difference_told(eps, changed, plant, qwen2):
    """The subject builds the other configuration; one that is equal is no effect."""
    wrap_configuration(plant, lambda config: {**config, "rms_norm_eps": eps})
    built = plant.subject.build(qwen2, device="cpu", dtype="float32", seed=0)
    assert built.config == {**qwen2, "rms_norm_eps": eps}
    assert (plant.reached, plant.changed) == (1, changed)
