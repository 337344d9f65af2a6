"""One run on two ranks that ends in a number that is not finite on one of them, and its twin.

The ranks have a GPU each, or meet by gloo on the CPU. A launch takes seconds, so one serves several
claims: its first steps are held against one process, and its last one is spoiled by the data. A
marked token occurs in one window of the corpus, which one rank reads at one step; the head's row of
that token is so large that having it as a target overflows float32, while every other target has a
finite loss and gradient.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from falsifiers import tiny_runs
from falsifiers.made_once import made_once
from falsifiers.shard_corpus import draw_ids, order, prepare, shards, windows_of
from falsifiers.subject import (
    Batch,
    Configuration,
    Execution,
    Instance,
    StepMetrics,
    Subject,
)
from falsifiers.tiny_runs import FinishedRun
from falsifiers.weight_files import random_weights, write_folder

RANKS, LENGTH, MICRO_BATCH = 2, 16, 2
STEPS, EPOCH, SPOILED_STEP, SPOILED_RANK = 8, 2, 5, 1
PEAK, WARM_UP, SEED = 3e-3, 1, 0
COMPARED = SPOILED_STEP // EPOCH * EPOCH
"""Steps up to the last checkpoint before the spoiled one."""

_MARK = 255
_OVERFLOWING = -3e38


def untied(configuration: Configuration) -> dict[str, Any]:
    """The configuration with a head of its own, whose rows are then no embedding."""
    return {**configuration, "tie_word_embeddings": False}


def start_weights(configuration: Configuration) -> dict[str, Tensor]:
    """The weights that the run starts from, of the untied configuration, float32 by name."""
    weights = random_weights(untied(configuration), 3)
    # Channel 0 of every hidden state is then about the root of the width, and positive.
    weights["model.embed_tokens.weight"][:, 0] = 1.0
    weights["lm_head.weight"][_MARK] = 0.0
    weights["lm_head.weight"][_MARK, 0] = _OVERFLOWING
    return weights


@dataclass(frozen=True)
class SharedRun:
    """The run of two ranks, and what it read."""

    made: FinishedRun
    dataset: Path


def shared_run(
    subject: Subject, configuration: Configuration, parallel: str, device: str
) -> SharedRun:
    """The run where ranks share a step by `parallel`, ``ddp`` or ``fsdp``.

    On ``cuda`` each rank has a GPU, and the order of every sum is fixed, as the twin's is.

    Raises:
        RuntimeError: there was no run.
    """
    config = untied(configuration)
    start = made_once("overflowing", config, partial(_write_weights, config))
    dataset = _spoiled(subject)
    options = {
        "device": device, "dtype": "float32", "compile": "off", "parallel": parallel,
        "init": start / "weights", "tokenizer": tiny_runs.byte_tokenizer(),
        "dataset": dataset, "run-dir": tiny_runs.RUN_DIR,
        "num-steps": STEPS, "steps-per-epoch": EPOCH, "batch-size": MICRO_BATCH,
        "seq-length": LENGTH, "lr": PEAK, "warmup": WARM_UP, "seed": SEED,
    }  # fmt: skip
    options |= {} if device == "cpu" else {"deterministic": True}
    command = subject.command("pretrain", *tiny_runs.option_words(options), processes=RANKS)
    made = tiny_runs.made_run(f"two-ranks-{parallel}", command, device)
    return SharedRun(made, dataset)


def _write_weights(configuration: Configuration, folder: Path) -> None:
    write_folder(folder / "weights", configuration, start_weights(configuration))


def _spoiled(subject: Subject) -> Path:
    """A dataset with the mark in a window of the spoiled step and rank."""
    ids = draw_ids(RANKS * MICRO_BATCH * STEPS * LENGTH + 1, 1)
    clean = prepare(subject, {"tokens.bin": ids}, shard_tokens=10**6)
    known = windows_of(np.concatenate(shards(clean)), LENGTH)
    # One process with a micro-batch for each rank: what is then found is claimed elsewhere.
    shape = {"length": LENGTH, "micro_batch": MICRO_BATCH, "accumulation": RANKS, "seed": SEED}
    step = order(subject, clean, known, STEPS, **shape)[SPOILED_STEP]
    ids[step[SPOILED_RANK * MICRO_BATCH] * LENGTH + LENGTH // 2] = _MARK
    return prepare(subject, {"tokens.bin": ids}, shard_tokens=10**6)


def spoiled_ranks(subject: Subject, run: SharedRun) -> list[tuple[int, int]]:
    """Steps and ranks whose batch holds the mark."""
    found = []
    for rank in range(RANKS):
        stream = subject.training_batches(run.dataset, **_dealt(rank))
        for step, batches in enumerate(itertools.islice(stream, STEPS)):
            if any(bool((batch.tokens == _MARK).any()) for batch in batches):
                found.append((step, rank))
    return found


def _dealt(rank: int) -> dict[str, Any]:
    return {
        "length": LENGTH,
        "micro_batch": MICRO_BATCH,
        "accumulation": 1,
        "seed": SEED,
        "rank": rank,
        "world_size": RANKS,
    }


def batches_of_ranks(subject: Subject, dataset: Path) -> list[list[Batch]]:
    """The batch of each rank, for each step that is compared."""
    streams = [subject.training_batches(dataset, **_dealt(rank)) for rank in range(RANKS)]
    steps = [[one for stream in streams for one in next(stream)] for _ in range(COMPARED)]
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    return steps


@dataclass(frozen=True)
class Twin:
    """One process that took the compared steps with each rank's batch as a micro-batch.

    Attributes:
        batches: of each rank, for each step.
        before: the weights before each step, on the CPU.
        metrics: of each step.
    """

    instance: Instance
    batches: list[list[Batch]]
    before: list[dict[str, Tensor]]
    metrics: list[StepMetrics]


def twin(subject: Subject, configuration: Configuration, run: SharedRun, device: str) -> Twin:
    """The compared steps again in this process, on one thread as the ranks have."""
    instance = subject.build(
        untied(configuration),
        device=device,
        dtype="float32",
        seed=SEED,
        execution=Execution(deterministic=device != "cpu"),
    )
    instance.set_parameters(start_weights(configuration))
    batches = batches_of_ranks(subject, run.dataset)
    before, metrics = [], []
    with _one_thread():
        for step, micro_batches in enumerate(batches):
            before.append({n: p.detach().clone().cpu() for n, p in instance.parameters().items()})
            lr = subject.learning_rate(step, peak=PEAK, warm_up=WARM_UP, total=STEPS)
            metrics.append(instance.train_step(micro_batches, lr=lr))
    return Twin(instance, batches, before, metrics)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def training_state(path: Path) -> dict[str, Tensor]:
    """Weights and both moments of a checkpoint, by name and kind."""
    from falsifiers.apr_container import AprContainer

    file = AprContainer(path)
    return {name: torch.from_numpy(np.array(file.tensor(name))) for name in file.names}


def state_of(instance: Instance) -> dict[str, Tensor]:
    """The same of an instance, on the CPU, under the names that a checkpoint uses."""
    state = dict(instance.parameters())
    for name, moments in instance.optimizer_state().items():
        state[f"__training__.optim.{name}.exp_avg"] = moments.exp_avg
        state[f"__training__.optim.{name}.exp_avg_sq"] = moments.exp_avg_sq
    return {name: tensor.detach().cpu() for name, tensor in state.items()}
