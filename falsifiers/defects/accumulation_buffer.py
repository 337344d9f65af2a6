"""Sums of gradients that are kept in sixteen bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping import InstanceWrapper, wrap_instances


@defect(
    "accumulation-buffer-bfloat16",
    kind=SOURCE,
    imitates="a model held in bfloat16, whose gradients accumulate in its own dtype",
    symptom="after each micro-batch the sum is rounded to eight bits",
    hidden="with a few micro-batches of one size hardly anything is lost",
)
def accumulation_buffer_bfloat16(plant: Plant) -> None:
    """Round the sum after each backward."""

    def make(original: Any) -> Any:
        def backward(trainer: Any, batches: Sequence[Any], targets: int) -> Any:
            total = 0.0
            for batch in batches:
                total = total + original(trainer, [batch], targets)
                for parameter in trainer.model.parameters():
                    rounded = parameter.grad.bfloat16().float()
                    plant.effect(differs(parameter.grad, rounded))
                    parameter.grad.copy_(rounded)
            return total

        return backward

    plant.patch("trainer.trainer:PretrainTrainer._backward", make)


class _Float16Buffer(InstanceWrapper):
    def __init__(self, inner: Any, plant: Plant) -> None:
        super().__init__(inner, plant)
        self._sums: dict[str, Any] = {}

    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A step that begins with empty sums."""
        self._sums = {}
        return self.inner.train_step(batch, lr=lr)

    def on_gradient(self, name: str, hook: Any) -> None:
        """The hook, and then what it adds to a sum in float16."""

        def added(found: Any) -> Any:
            value = hook(found)
            before = self._sums.get(name, value * 0)
            after = (before + value).half().float()
            self._sums[name] = after
            self.plant.effect(differs(after - before, value))
            return after - before

        self.inner.on_gradient(name, added)


@defect(
    "accumulation-buffer-float16",
    kind=PROTOCOL,
    imitates="gradient buckets in half precision",
    symptom="each micro-batch adds to a sum that is kept in float16",
    hidden="eleven bits are enough for a few micro-batches of one size",
)
def accumulation_buffer_float16(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _Float16Buffer)
