"""The canary: the same each time while nothing is planted, different once anything moves."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from falsifiers import canary
from trainer import optimizer
from trainer.trainer import PretrainTrainer


def test_it_is_stable_across_calls():
    """Three measurements in one process are one string of 64 hexadecimal digits."""
    measured = {canary.measure() for _ in range(3)}
    assert len(measured) == 1
    assert len(bytes.fromhex(measured.pop())) == 32


def test_it_does_not_depend_on_the_global_generator():
    """A falsifier that draws random numbers before it is no defect left behind."""
    torch.manual_seed(1)
    first = canary.measure()
    torch.manual_seed(2)
    assert canary.measure() == first


def larger_rate(trainer: Any, *arguments: Any, **options: Any) -> None:
    """The constructor with a learning rate 1 % larger."""
    *others, lr = arguments
    _INIT(trainer, *others, lr * 1.01, **options)


def gradients_kept(*arguments: Any) -> Any:
    """An optimizer that clears no gradient, which only a second step can show."""
    built = _BUILD(*arguments)
    built.zero_grad = lambda set_to_none=True: None
    return built


_INIT, _BUILD = PretrainTrainer.__init__, optimizer.build_optimizer


@pytest.mark.parametrize(
    ("owner", "name", "changed"),
    [
        (PretrainTrainer, "__init__", larger_rate),
        (optimizer, "build_optimizer", gradients_kept),
    ],
)
def test_it_sees_a_changed_parameter_of_the_trainer(owner, name, changed, monkeypatch):
    """A rate 1 % larger, or gradients that pile up, move the canary; without them it is back."""
    clean = canary.measure()
    monkeypatch.setattr(owner, name, changed)
    spoiled = canary.measure()
    monkeypatch.undo()
    assert spoiled != clean
    assert canary.measure() == clean


def test_resetting_without_the_compiler_imports_nothing():
    """Where torch was never imported there is nothing to reset, and nothing is loaded for it."""
    script = (
        "import sys; from falsifiers.canary import reset_compiler; reset_compiler()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_resetting_drops_compiled_code():
    """What was compiled under a defect goes on running it, until it is reset."""
    compiled = torch.compile(lambda x: x * 2.0, backend="eager")
    one = torch.ones(())
    assert compiled(one).item() == 2.0
    counters.clear()
    compiled(one)
    assert not counters["frames"], "the cached code runs, nothing is compiled"
    canary.reset_compiler()
    compiled(one)
    assert counters["frames"]["ok"] == 1, "compiled anew"
