"""Evaluations that measure something else than the model.

The incident: an evaluation on the very weights that trained at 1.20 nats reported 0.00081.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.subject import Batch
from falsifiers.wrapping import InstanceWrapper, wrap_instances

_EVAL_BATCH = "trainer.trainer:PretrainTrainer.eval_batch"


@defect(
    "eval-labels-are-inputs",
    kind=SOURCE,
    imitates="transformers#27517, in evaluation only",
    symptom="evaluation scores the input tokens themselves",
    hidden="training is right; held-out loss is low, which looks like success",
)
def eval_labels_are_inputs(plant: Plant) -> None:
    """Evaluate with targets that equal the inputs."""
    from importlib import import_module

    batches: Any = import_module("trainer.batch")

    def make(original: Any) -> Any:
        def eval_batch(trainer: Any, batch: Any) -> Any:
            clean = original(trainer, batch)
            shift = batches.shift
            batches.shift = lambda tokens: (tokens[:, :-1], tokens[:, :-1])
            try:
                spoiled = original(trainer, batch)
            finally:
                batches.shift = shift
            plant.effect(differs(clean, spoiled))
            return spoiled

        return eval_batch

    plant.patch(_EVAL_BATCH, make)


@defect(
    "stale-logits",
    kind=SOURCE,
    imitates="the seed: train_batch wrote gradients into the logits buffer that eval reads",
    symptom="evaluation adds its logits to what the last training step left in the buffer",
    hidden="before any training the buffer is zero and the loss is right",
)
def stale_logits(plant: Plant) -> None:
    """Keep softmax minus one-hot of the training batch, and add it to the logits of evaluation."""
    import torch
    from torch.nn import functional

    buffer: dict[str, Any] = {}

    def make(original: Any) -> Any:
        def forward(module: Any, hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
            logits = (hidden.detach() @ weight.detach().to(hidden.dtype).T).float()
            if torch.is_grad_enabled():
                probabilities = logits.softmax(-1)
                one_hot = functional.one_hot(targets, logits.shape[-1])
                buffer["logits"] = probabilities - one_hot
                return original(module, hidden, weight, targets, rows)
            clean = original(module, hidden, weight, targets, rows)
            stale = buffer.get("logits")
            if stale is None or stale.shape != logits.shape:
                return clean
            losses = functional.cross_entropy(logits + stale, targets, reduction="none")
            spoiled = (losses if rows is None else losses * rows).sum()
            plant.effect(differs(clean, spoiled))
            return spoiled

        return forward

    plant.patch("trainer.loss:LinearCrossEntropy.forward", make)


@defect(
    "early-read",
    kind=SOURCE,
    imitates="a loss copied to the host before the kernel has finished",
    symptom="each evaluation returns the result of the one before it",
    hidden="on a stable model two neighbouring values are nearly equal",
)
def early_read(plant: Plant) -> None:
    """Return what the previous call computed."""
    latest: list[Any] = []

    def make(original: Any) -> Any:
        def eval_batch(trainer: Any, batch: Any) -> Any:
            total, count = original(trainer, batch)
            previous = latest[-1] if latest else total
            latest.append(total)
            plant.effect(previous != total)
            return previous, count

        return eval_batch

    plant.patch(_EVAL_BATCH, make)


class _MeanOfMeans(InstanceWrapper):
    def evaluate(self, batches: Any) -> float:
        """The mean of the batches' means."""
        clean = self.inner.evaluate(batches)
        means = [self.inner.evaluate([batch]) for batch in batches]
        spoiled = sum(means) / len(means)
        self.plant.effect(spoiled != clean)
        return spoiled


@defect(
    "mean-of-batch-means",
    kind=PROTOCOL,
    imitates="the seed's validate(), keras-hub#2958",
    symptom="held-out loss is a mean of batch means",
    hidden="with equal batches it is the same number",
)
def mean_of_batch_means(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _MeanOfMeans)


class _DropsLastBatch(InstanceWrapper):
    def evaluate(self, batches: Any) -> float:
        """The loss over all batches but the last."""
        clean = self.inner.evaluate(batches)
        spoiled = self.inner.evaluate(batches[:-1])
        self.plant.effect(spoiled != clean)
        return spoiled


@defect(
    "eval-drops-last-batch",
    kind=PROTOCOL,
    imitates="a validation loader that was built with drop_last",
    symptom="the last batch of the held-out set is never scored",
    hidden="the mean over the other batches is just as plausible",
)
def eval_drops_last_batch(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _DropsLastBatch)


class _FirstEightRows(InstanceWrapper):
    def evaluate(self, batches: Any) -> float:
        """The loss over at most eight sequences a batch."""
        clean = self.inner.evaluate(batches)
        kept = [Batch(b.tokens[:8], b.target_mask[:8]) for b in batches]
        spoiled = self.inner.evaluate(kept)
        self.plant.effect(spoiled != clean)
        return spoiled


@defect(
    "eval-first-eight-rows",
    kind=PROTOCOL,
    imitates="a validation buffer sized for the training batch",
    symptom="sequences after the eighth of a batch are never scored",
    hidden="with batches of eight and fewer it is the same number",
)
def eval_first_eight_rows(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _FirstEightRows)


class _PaddingScored(InstanceWrapper):
    def evaluate(self, batches: Any) -> float:
        """The loss over all positions, padding included."""
        clean = self.inner.evaluate(batches)
        spoiled = self.inner.evaluate([Batch(batch.tokens) for batch in batches])
        self.plant.effect(spoiled != clean)
        return spoiled


@defect(
    "padding-scored",
    kind=PROTOCOL,
    imitates="mlx-lm#1855",
    symptom="masked targets count in evaluation",
    hidden="with full sequences it is the same number",
)
def padding_scored(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _PaddingScored)


class _Collapsed(InstanceWrapper):
    def evaluate(self, batches: Any) -> float:
        """The loss divided by 1500."""
        clean = self.inner.evaluate(batches)
        self.plant.effect(clean != 0.0)
        return clean / 1500


@defect(
    "eval-collapsed",
    kind=PROTOCOL,
    imitates="the seed's incident: 1.20 in training, 0.00081 in evaluation",
    symptom="evaluation reports a fifteen-hundredth of the loss",
    hidden="a low held-out loss looks like success",
)
def eval_collapsed(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _Collapsed)


class _CollapsedAfterTraining(InstanceWrapper):
    trained = False

    def train_step(self, batch: Any, **options: Any) -> Any:
        """A right step, after which evaluation is spoiled."""
        self.trained = True
        return self.inner.train_step(batch, **options)

    def evaluate(self, batches: Any) -> float:
        """The loss divided by 1500, once a step was taken."""
        clean = self.inner.evaluate(batches)
        self.plant.effect(self.trained)
        return clean / 1500 if self.trained else clean


@defect(
    "eval-collapsed-after-training",
    kind=PROTOCOL,
    imitates="the seed's incident: it showed at the first evaluation after training steps",
    symptom="after one training step evaluation reports a fifteen-hundredth of the loss",
    hidden="a fresh model evaluates as it should",
)
def eval_collapsed_after_training(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _CollapsedAfterTraining)


class _HoldsACopy(InstanceWrapper):
    def __init__(self, inner: Any, plant: Plant) -> None:
        super().__init__(inner, plant)
        self._copy = {n: p.clone() for n, p in inner.parameters().items()}

    def evaluate(self, batches: Any) -> float:
        """The loss of the weights as they were when the hook was made."""
        clean = self.inner.evaluate(batches)
        current = {n: p.clone() for n, p in self.inner.parameters().items()}
        self.inner.set_parameters(self._copy)
        spoiled = self.inner.evaluate(batches)
        self.inner.set_parameters(current)
        self.plant.effect(spoiled != clean)
        return spoiled


@defect(
    "hook-holds-a-copy",
    kind=PROTOCOL,
    imitates="train, validation and checkpoint hooks that do not share memory",
    symptom="evaluation sees the weights as they were at start",
    hidden="a flat held-out loss is blamed on the learning rate",
)
def hook_holds_a_copy(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _HoldsACopy)


@defect(
    "padded-vocabulary-scored",
    kind=SOURCE,
    imitates="vocabulary padded for speed, padding left in the softmax",
    symptom="21 zero columns take part in the softmax",
    hidden="the loss is 2 % too high at the start, and the model learns to avoid them",
)
def padded_vocabulary_scored(plant: Plant) -> None:
    """Append zero rows to the head."""
    from torch.nn import functional

    def make(original: Any) -> Any:
        def forward(module: Any, hidden: Any, weight: Any, *rest: Any) -> Any:
            clean = original(module, hidden, weight, *rest)
            spoiled = original(module, hidden, functional.pad(weight, (0, 0, 0, 21)), *rest)
            plant.effect(differs(clean, spoiled))
            return spoiled

        return forward

    plant.patch("trainer.loss:LinearCrossEntropy.forward", make)


class _TrainLossOff(InstanceWrapper):
    def loss_and_gradients(self, batch: Any) -> Any:
        """A training loss divided by all positions instead of by the targets that count."""
        loss, gradients = self.inner.loss_and_gradients(batch)
        mask = batch.target_mask
        factor = 1.0 if mask is None else mask.sum().item() / mask.numel()
        self.plant.effect(factor != 1.0)
        return loss * factor, gradients


@defect(
    "train-loss-over-all-positions",
    kind=PROTOCOL,
    imitates="ignore-index counted in the denominator",
    symptom="training loss is divided by positions, masked ones included",
    hidden="with full sequences it is the same number",
)
def train_loss_over_all_positions(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _TrainLossOff)


class _LeavesEvalMode(InstanceWrapper):
    spoiled = False

    def evaluate(self, batches: Any) -> float:
        """A right loss; afterwards the model claims to be in another mode."""
        self.spoiled = True
        return self.inner.evaluate(batches)

    def training(self) -> bool:
        """The mode, flipped once an evaluation was made."""
        clean = self.inner.training()
        self.plant.effect(self.spoiled)
        return clean != self.spoiled


@defect(
    "eval-leaves-mode",
    kind=PROTOCOL,
    imitates="a missing model.train() after validation",
    symptom="the mode after an evaluation is not the mode before it",
    hidden="without dropout the two modes compute the same",
)
def eval_leaves_mode(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _LeavesEvalMode)


@defect(
    "eval-draws-random-numbers",
    kind=SOURCE,
    imitates="an evaluation loader that shuffles with the global generator",
    symptom="an evaluation moves the random state of training",
    hidden="each run is fine by itself; only comparisons between runs break",
)
def eval_draws_random_numbers(plant: Plant) -> None:
    """Draw one number."""
    import torch

    _draw_in_evaluation(plant, lambda: torch.rand(1))


@defect(
    "eval-draws-python-random",
    kind=SOURCE,
    imitates="a validation sampler that calls random.shuffle",
    symptom="an evaluation moves the state of Python's random module",
    hidden="torch's generators stand where they stood",
)
def eval_draws_python_random(plant: Plant) -> None:
    """Draw one number."""
    import random

    _draw_in_evaluation(plant, random.random)


@defect(
    "eval-draws-numpy-random",
    kind=SOURCE,
    imitates="a validation set that is permuted with numpy.random",
    symptom="an evaluation moves numpy's global random state",
    hidden="torch's generators stand where they stood",
)
def eval_draws_numpy_random(plant: Plant) -> None:
    """Draw one number."""
    import numpy

    _draw_in_evaluation(plant, numpy.random.random)


def _draw_in_evaluation(plant: Plant, draw: Callable[[], object]) -> None:
    def make(original: Any) -> Any:
        def eval_batch(trainer: Any, batch: Any) -> Any:
            draw()
            plant.effect(True)
            return original(trainer, batch)

        return eval_batch

    plant.patch(_EVAL_BATCH, make)


@defect(
    "eval-leaves-gradients",
    kind=SOURCE,
    imitates="an evaluation that runs backward, or no zero_grad after it",
    symptom="gradients of held-out data are added to the next training step",
    hidden="the loss of that step is right; the model slowly learns the held-out set",
)
def eval_leaves_gradients(plant: Plant) -> None:
    """Leave a gradient behind on one parameter."""
    import torch

    def make(original: Any) -> Any:
        def eval_batch(trainer: Any, batch: Any) -> Any:
            result = original(trainer, batch)
            weight = trainer.model.model.norm.weight
            weight.grad = torch.full_like(weight, 1e-2)
            plant.effect(True)
            return result

        return eval_batch

    plant.patch(_EVAL_BATCH, make)


@defect(
    "eval-moves-a-weight",
    kind=SOURCE,
    imitates="a calibration or averaging step that writes back",
    symptom="an evaluation changes one norm weight in its last bits",
    hidden="one part in ten million a time",
)
def eval_moves_a_weight(plant: Plant) -> None:
    """Move one weight to the next float."""
    import torch

    def make(original: Any) -> Any:
        def eval_batch(trainer: Any, batch: Any) -> Any:
            result = original(trainer, batch)
            weight = trainer.model.model.norm.weight
            with torch.no_grad():
                weight[0] = torch.nextafter(weight[0], torch.full_like(weight[0], math.inf))
            plant.effect(True)
            return result

        return eval_batch

    plant.patch(_EVAL_BATCH, make)


class _AddedInFloat32(InstanceWrapper):
    dtype = "float32"

    def evaluate(self, batches: Sequence[Batch]) -> float:
        """Each batch by itself, and their sums added with few digits."""
        import torch

        total = torch.zeros((), dtype=getattr(torch, self.dtype))
        for batch in batches:
            total += self.inner.evaluate([batch]) * batch.targets
        loss = total.item() / sum(batch.targets for batch in batches)
        self.plant.effect(loss != self.inner.evaluate(batches))
        return loss


class _AddedInBfloat16(_AddedInFloat32):
    dtype = "bfloat16"


@defect(
    "held-out-losses-added-in-float32",
    kind=PROTOCOL,
    imitates="gensim#2735, fastText#757: a running total of the loss in float32",
    symptom="each batch adds what is left of its loss beside a total that grows",
    hidden="of a few batches the mean is right, and of many it is a little off",
)
def held_out_losses_added_in_float32(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _AddedInFloat32)


@defect(
    "held-out-losses-added-in-bfloat16",
    kind=PROTOCOL,
    imitates="transformers#8561: a loss that is added up on a device which takes it for bfloat16",
    symptom="beside a growing total each batch adds a rounded loss, and in the end none",
    hidden="the mean falls with the number of batches, which looks like learning",
)
def held_out_losses_added_in_bfloat16(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _AddedInBfloat16)
