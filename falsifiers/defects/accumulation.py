"""Several micro-batches that do not add up to one step over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.subject import Batch, micro_batches
from falsifiers.wrapping import InstanceWrapper, wrap_instances

_BACKWARD = "trainer.trainer:PretrainTrainer._backward"


@defect(
    "mean-of-micro-batch-means",
    kind=SOURCE,
    imitates="transformers#34191: loss.mean() divided by the number of accumulation steps",
    symptom="each micro-batch weighs the same, however many targets it has",
    hidden="with equal micro-batches it is the same number",
)
def mean_of_micro_batch_means(plant: Plant) -> None:
    """Divide each micro-batch by its own targets, then by their number."""

    def make(original: Any) -> Any:
        def backward(trainer: Any, batches: Sequence[Any], targets: int) -> Any:
            counts = [batch.target_count() for batch in batches]
            plant.effect(len(set(counts)) > 1)
            pairs = zip(batches, counts, strict=True)
            return sum(original(trainer, [b], count * len(counts)) for b, count in pairs)

        return backward

    plant.patch(_BACKWARD, make)


@defect(
    "clip-each-micro-batch",
    kind=SOURCE,
    imitates="clip_grad_norm_ inside the accumulation loop instead of after it",
    symptom="each micro-batch's gradient is clipped on its own before it is added",
    hidden="gradients below the limit are right, and Adam divides most of a factor out again",
)
def clip_each_micro_batch(plant: Plant) -> None:
    """Clip after each backward, and add up what is left."""
    from importlib import import_module

    gradients: Any = import_module("trainer.gradients")

    def make(original: Any) -> Any:
        def backward(trainer: Any, batches: Sequence[Any], targets: int) -> Any:
            parameters = list(trainer.model.parameters())
            total, sums = 0.0, [0.0 for _ in parameters]
            for batch in batches:
                for parameter in parameters:
                    parameter.grad = None
                total = total + original(trainer, [batch], targets)
                norm = gradients.global_norm(parameters)
                factor = gradients.clip_coefficient(norm).float()
                # With a single micro-batch what is logged and clipped again differs as well.
                plant.effect(bool(factor != 1))
                sums = [s + p.grad * factor for s, p in zip(sums, parameters, strict=True)]
            for parameter, value in zip(parameters, sums, strict=True):
                parameter.grad = value
            return total

        return backward

    plant.patch(_BACKWARD, make)


@defect(
    "step-every-micro-batch",
    kind=SOURCE,
    imitates="optimizer.step() one indentation level too deep",
    symptom="the optimizer steps after each micro-batch",
    hidden="the loss falls faster than with one step, which looks like success",
)
def step_every_micro_batch(plant: Plant) -> None:
    """Take a whole step for each."""

    def make(original: Any) -> Any:
        def whole_step(trainer: Any, batches: Sequence[Any], targets: int) -> Any:
            plant.effect(len(batches) > 1)
            for batch in batches:
                trainer.optimizer.zero_grad(set_to_none=True)
                result = original(trainer, [batch], batch.target_count())
            return result

        return whole_step

    plant.patch("trainer.trainer:PretrainTrainer.whole_step", make)


@defect(
    "gradients-not-cleared",
    kind=SOURCE,
    imitates="a missing zero_grad after the optimizer step",
    symptom="gradients of all earlier cycles are added to each new one",
    hidden="it acts like a very long momentum, and the first step is right",
)
def gradients_not_cleared(plant: Plant) -> None:
    """Clear nothing."""

    def make(original: Any) -> Any:
        def zero_grad(optimizer: Any, set_to_none: bool = True) -> None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            plant.effect(any(p.grad is not None for p in parameters))

        return zero_grad

    plant.patch("trainer.optimizer:AdamW.zero_grad", make)


class _CarriedOver(InstanceWrapper):
    left: tuple[Batch, ...] = ()

    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A step over its own micro-batches and the last one of the step before."""
        batches = [*self.left, *micro_batches(batch)]
        self.plant.effect(bool(self.left))
        self.left = (batches[-1],)
        return self.inner.train_step(batches, lr=lr)


@defect(
    "last-micro-batch-carried-over",
    kind=PROTOCOL,
    imitates="accumulation boundaries counted from zero in one place and from one in another",
    symptom="the last micro-batch of a cycle is counted in the next one as well",
    hidden="every gradient is a real gradient of real data",
)
def last_micro_batch_carried_over(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _CarriedOver)


class _LastLost(InstanceWrapper):
    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A step over all micro-batches but the last."""
        batches = micro_batches(batch)
        self.plant.effect(len(batches) > 1)
        return self.inner.train_step(batches[:-1] or batches, lr=lr)


@defect(
    "last-micro-batch-lost",
    kind=PROTOCOL,
    imitates="a loop over range(1, accumulation)",
    symptom="the last micro-batch of each cycle is not trained on",
    hidden="the others are as good a batch, only smaller",
)
def last_micro_batch_lost(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _LastLost)


class _StepEach(InstanceWrapper):
    cycles = 0

    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """One step for each micro-batch, reported as one."""
        batches = micro_batches(batch)
        self.plant.effect(len(batches) > 1)
        for one in batches:
            metrics = self.inner.train_step(one, lr=lr)
        self.cycles += 1
        return replace(metrics, step=self.cycles - 1)


@defect(
    "micro-batches-stepped-one-by-one",
    kind=PROTOCOL,
    imitates="an accumulation setting that the optimizer never hears of",
    symptom="each micro-batch is a step of its own, and the log shows one",
    hidden="the loss falls faster than with one step, which looks like success",
)
def micro_batches_stepped_one_by_one(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _StepEach)


class _AveragedTwice(InstanceWrapper):
    def __init__(self, inner: Any, plant: Plant) -> None:
        super().__init__(inner, plant)
        self._factor = 1.0
        for name in inner.parameters():
            inner.on_gradient(name, lambda gradient: gradient * self._factor)

    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A step whose gradients are divided once more by the number of micro-batches."""
        self._factor = 1.0 / len(micro_batches(batch))
        self.plant.effect(self._factor != 1.0)
        return self.inner.train_step(batch, lr=lr)


@defect(
    "gradients-averaged-twice",
    kind=PROTOCOL,
    imitates="a loss over all targets that is divided by the accumulation steps as well",
    symptom="the total is too small by the number of micro-batches, and is clipped too late",
    hidden="Adam divides a constant factor out, so only the norm and the clipping are wrong",
)
def gradients_averaged_twice(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _AveragedTwice)


class _LossOfMeans(InstanceWrapper):
    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A right step that reports the mean of the micro-batches' losses."""
        losses = [self.inner.loss_and_gradients(one)[0] for one in micro_batches(batch)]
        metrics = self.inner.train_step(batch, lr=lr)
        mean = sum(losses) / len(losses)
        self.plant.effect(mean != metrics.train_loss)
        return replace(metrics, train_loss=mean)


@defect(
    "loss-reported-as-mean-of-means",
    kind=PROTOCOL,
    imitates="a running mean over micro-batch losses in the log",
    symptom="the reported loss weighs a micro-batch of five targets like one of five hundred",
    hidden="training itself is right",
)
def loss_reported_as_mean_of_means(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _LossOfMeans)


@defect(
    "asked-gradients-stay",
    kind=SOURCE,
    imitates="a probe of gradients, in mid-training, without a zero_grad() behind it",
    symptom="gradients of a batch that was only asked about are in the next step",
    hidden="the step's loss is right, and the optimizer normalises its length",
)
def asked_gradients_stay(plant: Plant) -> None:
    """Leave what was asked for where backward puts it."""

    def make(original: Any) -> Any:
        def asked(trainer: Any, batch: Any) -> Any:
            loss, found = original(trainer, batch)
            for name, gradient in found.items():
                trainer.parameters[name].grad = gradient.clone()
            plant.effect(bool(found))
            return loss, found

        return asked

    plant.patch("trainer.trainer:PretrainTrainer.loss_and_gradients", make)


class _AskedByTraining(InstanceWrapper):
    def loss_and_gradients(self, batch: Any) -> Any:
        """The right answer, for which a step of rate zero was taken."""
        loss, found = self.inner.loss_and_gradients(batch)
        self.plant.effect(True)
        self.inner.train_step(batch, lr=0.0)
        return loss, found


@defect(
    "asking-moves-the-moments",
    kind=PROTOCOL,
    imitates="gradients that are read off by a training step at rate zero",
    symptom="no weight moves when gradients are asked for, and both moments do",
    hidden="the gradients are right, and the weights untouched",
)
def asking_moves_the_moments(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _AskedByTraining)
