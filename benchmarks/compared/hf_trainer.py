"""What transformers tests of its Trainer, asked of this trainer.

Its tests train a regression with two weights; here a tiny language model stands in its place. The
bounds are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.compared import upstream
from benchmarks.compared.commands import VOCABULARY, prepared, sentences
from benchmarks.compared.comparing import Red, equal, torch_close, within
from benchmarks.compared.models import Reference, configuration, trainer_with
from benchmarks.compared.seed import OFFSET
from falsifiers.subject import Batch, Instance, Subject
from falsifiers.subject_parts import Provenance

_CONFIG = configuration("llama", vocab_size=VOCABULARY)
_STEPS = 24  # three epochs of 64 examples, eight at a time
_LR = 1e-3
_PROVENANCE = Provenance(dataset_sha256="c0" * 32, accumulation=1)
_EXPECTED_RATES = (0.0, 5.0, 10.0, 9.61, 8.53, 6.91, 5.0, 3.08, 1.46, 0.38)


@cache
def _weights() -> dict[str, Tensor]:
    return Reference(_CONFIG).weights()


def _fresh(subject: Subject) -> Instance:
    return trainer_with(subject, _CONFIG, _weights())


def _batch(seed: int, *, rows: int = 8, length: int = 16, padded: bool) -> Batch:
    generator = torch.Generator().manual_seed(seed + 100 * OFFSET)
    tokens = torch.randint(VOCABULARY, (rows, length + 1), generator=generator)
    if not padded:
        return Batch(tokens)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return Batch(tokens, torch.arange(length)[None] < lengths)


def _halves(batch: Batch) -> list[Batch]:
    masks = (None, None) if batch.target_mask is None else batch.target_mask.chunk(2)
    return [Batch(t, m) for t, m in zip(batch.tokens.chunk(2), masks, strict=True)]


def accumulated_losses_agree(subject: Subject, _: Path) -> None:
    """Five steps of eight padded sequences, and of twice four: the logged losses agree."""
    whole, parts = _fresh(subject), _fresh(subject)
    for step in range(5):
        batch = _batch(step, padded=True)
        base = whole.train_step(batch, lr=3e-4).train_loss
        accumulated = parts.train_step(_halves(batch), lr=3e-4).train_loss
        within(f"loss of step {step}", accumulated, base, upstream.ACCUMULATION_LOSS)


def accumulated_weights_agree(subject: Subject, _: Path) -> None:
    """Trained with and without accumulation, the models are the same."""
    whole, parts = _fresh(subject), _fresh(subject)
    for step in range(_STEPS):
        batch = _batch(step, padded=False)
        whole.train_step(batch, lr=_LR)
        parts.train_step(_halves(batch), lr=_LR)
    for name, value in whole.parameters().items():
        torch_close(name, parts.parameters()[name], value, upstream.ACCUMULATION_PARAMETERS)


def weights_move(subject: Subject, _: Path) -> None:
    """After training no parameter is where it was."""
    instance = _fresh(subject)
    for step in range(_STEPS):
        instance.train_step(_batch(step, padded=False), lr=0.1)
    for name, value in instance.parameters().items():
        limits = upstream.WEIGHTS_MOVE
        if torch.allclose(_weights()[name], value, atol=limits.atol, rtol=limits.rtol):
            raise Red(f"{name} has not been updated")


def training_is_reproducible(subject: Subject, _: Path) -> None:
    """One seed, one model; another seed, another."""

    def trained(seed: int) -> dict[str, Tensor]:
        instance = subject.build(_CONFIG, device="cpu", dtype="float32", seed=seed)
        for step in range(5):
            instance.train_step(_batch(step, padded=False), lr=_LR)
        return {name: value.clone() for name, value in instance.parameters().items()}

    first, again, other = trained(42), trained(42), trained(314)
    for name, value in first.items():
        torch_close(name, again[name], value, upstream.ACCUMULATION_PARAMETERS)
    equal("two seeds give one model", all(first[n].equal(other[n]) for n in first), False)


def resumes_exactly(subject: Subject, folder: Path) -> None:
    """Resumed from step 5 and from step 15, weights and log are those of the whole run."""
    dataset = prepared(subject, folder / "resume", sentences(64, 0), sentences(1, 9)[0])

    def steps(instance: Instance, first: int, save: Sequence[int] = ()) -> list[tuple[float, ...]]:
        stream = subject.training_batches(
            dataset, length=16, micro_batch=8, accumulation=1, seed=0, first_step=first, cycle=True
        )
        log: list[tuple[float, ...]] = []
        for step in range(first, _STEPS):
            if step in save:
                instance.save_checkpoint(folder / f"{step}.apr", _PROVENANCE)
            metrics = instance.train_step(next(stream), lr=_LR)
            log.append((metrics.step, metrics.train_loss, metrics.grad_norm, metrics.lr))
        return log

    whole = _fresh(subject)
    log = steps(whole, 0, save=(5, 15))
    for step in (5, 15):
        resumed = subject.build(_CONFIG, device="cpu", dtype="float32", seed=7)
        position = resumed.load_checkpoint(folder / f"{step}.apr", _PROVENANCE)
        equal(f"log after a resume from {step}", steps(resumed, position), log[position:])
        for name, value in whole.parameters().items():
            equal(f"{name} is the same", resumed.parameters()[name].equal(value), True)


def seeds_order_the_data(subject: Subject, folder: Path) -> None:
    """One data seed, one order; among other seeds there is another order."""
    dataset = prepared(subject, folder / "sampler", sentences(64, 0), sentences(1, 9)[0])

    def first(seed: int) -> Tensor:
        stream = subject.training_batches(
            dataset, length=16, micro_batch=8, accumulation=1, seed=seed
        )
        return next(stream)[0].tokens

    equal("one seed gives one order", first(42).equal(first(42)), True)
    equal("ten seeds give one order", all(first(42).equal(first(s)) for s in range(10)), False)


def evaluates_every_token_once(subject: Subject, _: Path) -> None:
    """The held-out loss of 66 sequences, eight at a time, is the mean over all their tokens."""
    reference, instance = Reference(_CONFIG), _fresh(subject)
    whole = _batch(77, rows=66, padded=False)
    with torch.no_grad():
        expected = reference.loss(whole).item()
    batches = [Batch(rows) for rows in torch.split(whole.tokens, 8)]
    within("held-out loss", instance.evaluate(batches), expected, upstream.TRAIN_EVAL_PARITY)


def training_and_evaluation_agree(subject: Subject, _: Path) -> None:
    """A padded batch has one loss in training and in evaluation."""
    instance, batch = _fresh(subject), _batch(78, rows=4, length=48, padded=True)
    loss, _gradients = instance.loss_and_gradients(batch)
    within("held-out loss", instance.evaluate([batch]), loss, upstream.TRAIN_EVAL_PARITY)


def schedule_is_the_expected_one(subject: Subject, _: Path) -> None:
    """Ten rates with two steps of warm-up, as transformers' cosine schedule has them."""
    for step, expected in enumerate(_EXPECTED_RATES):
        rate = subject.learning_rate(step, peak=10.0, warm_up=2, total=10)
        within(f"rate of step {step}", rate, expected, upstream.SCHEDULE)


def one_of_each(subject: Subject, folder: Path) -> None:
    """What the tests call of the trainer, once or twice."""
    dataset = prepared(subject, folder / "once", sentences(64, 0), sentences(1, 9)[0])
    batch = _batch(0, padded=True)
    for instance in (_fresh(subject), _fresh(subject)):
        instance.train_step(batch, lr=_LR)
        instance.train_step(_halves(batch), lr=_LR)
        instance.evaluate([batch])
        instance.loss_and_gradients(batch)
        instance.save_checkpoint(folder / "once.apr", _PROVENANCE)
        instance.load_checkpoint(folder / "once.apr", _PROVENANCE)
    for first in (0, 5):
        stream = subject.training_batches(
            dataset, length=16, micro_batch=8, accumulation=1, seed=0, first_step=first, cycle=True
        )
        for _step in range(_STEPS):
            next(stream)
    for step in range(len(_EXPECTED_RATES)):
        subject.learning_rate(step, peak=10.0, warm_up=2, total=10)


TESTS = {
    "gradient accumulation, losses": accumulated_losses_agree,
    "gradient accumulation, weights": accumulated_weights_agree,
    "weights updated": weights_move,
    "reproducible training": training_is_reproducible,
    "resume": resumes_exactly,
    "sampler seed": seeds_order_the_data,
    "evaluate": evaluates_every_token_once,
    "training and evaluation": training_and_evaluation_agree,
    "schedule": schedule_is_the_expected_one,
}
