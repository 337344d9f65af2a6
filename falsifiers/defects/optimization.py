"""Steps that do not move the weights as they should."""

from __future__ import annotations

from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, wrap_instances


class _Frozen(InstanceWrapper):
    """Restores the weights before every step of a run."""

    def run(self, *arguments: Any, before_step: Any = None, **options: Any) -> Any:
        """A run whose weights are put back each time."""
        start = {n: p.clone() for n, p in self.inner.parameters().items()}

        def restore(step: int) -> None:
            self.plant.effect(step > 0)
            self.inner.set_parameters(start)
            if before_step is not None:
                before_step(step)

        return self.inner.run(*arguments, before_step=restore, **options)


@defect(
    "weights-restored-every-step",
    kind=PROTOCOL,
    imitates="a training hook that holds a copy taken at start",
    symptom="each step starts from the initial weights",
    hidden="loss and norm are real numbers of real batches; they only never improve",
)
def weights_restored_every_step(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _Frozen)


@defect(
    "labels-rolled",
    kind=SOURCE,
    imitates="a data path that shuffles targets apart from inputs",
    symptom="targets are rolled by half a sequence against their inputs",
    hidden="unigram statistics are still learnt, so the loss falls for a while",
)
def labels_rolled(plant: Plant) -> None:
    """Roll the targets."""

    def make(original: Any) -> Any:
        def shift(tokens: Any) -> Any:
            inputs, targets = original(tokens)
            plant.effect(True)
            return inputs, targets.roll(targets.shape[1] // 2, dims=1)

        return shift

    plant.patch("trainer.batch:shift", make)


@defect(
    "ascent",
    kind=SOURCE,
    imitates="a sign lost in a hand-written update",
    symptom="weights move up the gradient",
    hidden="with warm-up the first hundred steps hardly move",
)
def ascent(plant: Plant) -> None:
    """Negate the gradients before the optimizer reads them."""

    def make(original: Any) -> Any:
        def step(own: Any, coefficient: Any, halted: Any) -> None:
            gradients = [p.grad for group in own.param_groups for p in group["params"]]
            for gradient in gradients:
                gradient.neg_()
            plant.effect(any(bool(gradient.any()) for gradient in gradients))
            original(own, coefficient, halted)

        return step

    plant.patch("trainer.optimizer:AdamW.step", make)
