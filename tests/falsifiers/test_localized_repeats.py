"""Two instances of one seed in one process: where they part, down to the tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from falsifiers.adapters.bundled import BundledSubject
from falsifiers.inputs import ragged_batch
from falsifiers.localization import session
from falsifiers.process_settings import nothing_reproducible
from falsifiers.subject import Execution
from tests.falsifiers.test_localization import CONSTANTS

DETERMINISTIC = Execution(deterministic=True)


def _repeated(
    config: dict[str, Any], before: Callable[[Any, int, int], None], execution: Execution
) -> list[dict[str, Any]]:
    """What is seen of two runs of one seed, disturbed before each step of each."""
    subject, observer = session.observe(BundledSubject(), CONSTANTS)
    with nothing_reproducible():
        for run in range(2):
            instance = subject.build(
                config, device="cpu", dtype="float32", seed=0, execution=execution
            )
            for step in range(3):
                before(instance, run, step)
                instance.train_step(ragged_batch(config, 2, 16, step), lr=1e-3)
    found: list[dict[str, Any]] = session.account(observer)["findings"]
    return found


def _nudge(instance: Any, name: str) -> None:
    weight = instance._inner.parameters()[name]
    weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))


def test_two_runs_of_one_seed_part_at_a_step_and_a_tensor(llama: dict[str, Any]) -> None:
    """One float in one weight; runs that agree, or were not to be deterministic, part nowhere."""
    last = "model.layers.1.mlp.down_proj.weight"

    def disturb(instance: Any, run: int, step: int) -> None:
        if (run, step) == (1, 2):
            _nudge(instance, last)

    (found,) = _repeated(llama, disturb, DETERMINISTIC)
    assert found["phase"] == "forward"
    assert found["where"] in ("layers.1.mlp.down_proj", "step 2, forward")
    assert "two runs of one seed part here" in found["fault"]
    assert _repeated(llama, lambda *_: None, DETERMINISTIC) == []
    assert _repeated(llama, disturb, Execution()) == []


def test_runs_that_were_given_other_things_are_not_compared(llama: dict[str, Any]) -> None:
    """A falsifier that changes a weight itself has made another run."""

    def own(instance: Any, run: int, step: int) -> None:
        weight = instance.parameters()["model.norm.weight"]
        instance.set_parameters({"model.norm.weight": weight * (1.25 + run)})

    assert _repeated(llama, own, DETERMINISTIC) == []
