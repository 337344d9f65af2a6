"""Liger's convergence test: a mini model trained for 32 steps beside transformers' own.

Liger trains mini models of 1024 columns on a GPU; here they have 32, and initial matrices of the
same gain. Liger shares the optimizer between its sides; here the trainer steps with its own, so
that faults of optimizer and clipping can show as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.compared import upstream
from benchmarks.compared.comparing import Red, liger_close
from benchmarks.compared.models import (
    Reference,
    configuration,
    deviation_as_wide,
    text_batches,
    trainer_with,
)
from falsifiers.subject import Configuration, Subject

LENGTH = 32
_THEIR_COLUMNS = 1024


@dataclass(frozen=True)
class _Trained:
    losses: Tensor
    logits: Tensor
    weights: dict[str, Tensor]


def _configuration(architecture: str) -> Configuration:
    theta = 1000000.0 if architecture == "qwen2" else 500000.0
    return configuration(architecture, rope_theta=theta)


@cache
def _reference(architecture: str, dtype: str) -> tuple[dict[str, Tensor], _Trained]:
    plan = upstream.CONVERGENCE[architecture, dtype]
    config = _configuration(architecture)
    deviation = deviation_as_wide(config["hidden_size"], _THEIR_COLUMNS)
    reference = Reference(config, dtype=dtype, deviation=deviation)
    first = reference.weights()
    batches = text_batches(plan.steps, plan.batch, LENGTH)
    losses = [reference.step(batch, plan.lr) for batch in batches[:-1]]
    logits = reference.logits(batches[-1].tokens[:, :-1]).detach()
    losses.append(reference.step(batches[-1], plan.lr))
    return first, _Trained(torch.tensor(losses), logits, reference.weights())


def converges(subject: Subject, _: Path, *, architecture: str, dtype: str) -> None:
    """Every loss, the logits of the last step and the parameters after it are transformers'."""
    plan = upstream.CONVERGENCE[architecture, dtype]
    first, expected = _reference(architecture, dtype)
    instance = trainer_with(subject, _configuration(architecture), first, dtype=dtype)
    losses = []
    for number, batch in enumerate(text_batches(plan.steps, plan.batch, LENGTH), 1):
        if number == plan.steps:
            logits = instance.logits(batch.tokens[:, :-1])
        losses.append(instance.train_step(batch, lr=plan.lr).train_loss)
    weights = instance.parameters()
    liger_close("losses", expected.losses, torch.tensor(losses), plan.loss)
    liger_close("logits", expected.logits, logits, plan.logits)
    if weights.keys() != expected.weights.keys():
        raise Red(f"parameters: {sorted(weights.keys() ^ expected.weights.keys())[:3]}")
    for name, value in expected.weights.items():
        liger_close(name, value, weights[name], plan.parameters)


def one_step(subject: Subject, _: Path) -> None:
    """What the test calls of the trainer, once."""
    for architecture, dtype in upstream.CONVERGENCE:
        first, _expected = _reference(architecture, dtype)
        instance = trainer_with(subject, _configuration(architecture), first, dtype=dtype)
        (batch,) = text_batches(1, 1, 4)
        instance.logits(batch.tokens[:, :-1])
        instance.train_step(batch, lr=1e-4)
        instance.parameters()


TESTS = {
    f"mini {architecture} {dtype}": partial(converges, architecture=architecture, dtype=dtype)
    for architecture, dtype in upstream.CONVERGENCE
}
