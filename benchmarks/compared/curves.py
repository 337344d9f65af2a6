"""What somebody who watches a run sees of it: losses, gradient norms, and how it ended.

Three runs with one seed: a script that drives the trainer step by step in bfloat16 (loader,
schedule, accumulation over padded texts, held-out losses, a checkpoint and a resume half-way), the
trainer's own loop until its data ends, and its command in float32 from given weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.compared.commands import (
    VOCABULARY,
    initial_model,
    options,
    prepared,
    read_log,
    run_command,
    sentences,
)
from benchmarks.compared.comparing import told
from benchmarks.compared.models import configuration
from falsifiers.subject import Batch, Instance, Subject
from falsifiers.subject_parts import Provenance

CONFIG = configuration("qwen2", vocab_size=VOCABULARY, rope_theta=10000.0)
LENGTH, ROWS, ACCUMULATION = 32, 4, 2
PEAK, WARM_UP, EVERY = 6e-3, 6, 10
_PROVENANCE = Provenance(dataset_sha256="c0" * 32, accumulation=ACCUMULATION)


@dataclass(frozen=True)
class Extent:
    """How long the runs are: steps of script and command, batches of the loop (0: all)."""

    steps: int
    warm_up: int
    every: int
    batches: int


FULL = Extent(40, WARM_UP, EVERY, 0)
SMALL = Extent(4, 1, 1, 2)
"""Calls all that the full extent calls, in a tenth of the time."""


@dataclass
class Curve:
    """One run as it was logged. `ending`: its status, or the exception that ended it."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    heldout: list[float] = field(default_factory=list)
    ending: str = "OK"


def watch(subject: Subject, folder: Path, seed: int, extent: Extent = FULL) -> dict[str, Curve]:
    """The three runs of one seed, by name. Nothing that goes wrong in them is raised."""
    place = _Place(subject, folder, seed, extent)
    curves = {"script": Curve(), "loop": Curve(), "command": Curve()}
    try:
        dataset = prepared(subject, folder, sentences(40, 0), "".join(sentences(4, 900)))
    except Exception as error:
        for curve in curves.values():
            curve.ending = _named(error)
        return curves
    for name, run in (("script", _script), ("loop", _loop), ("command", _command)):
        try:
            run(place, dataset, curves[name])
        except Exception as error:
            curves[name].ending = _named(error)
    return curves


@dataclass(frozen=True)
class _Place:
    subject: Subject
    folder: Path
    seed: int
    extent: Extent


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {told(error)}"


def _stream(
    place: _Place, dataset: Path, first: int, *, cycle: bool = True
) -> Iterator[Sequence[Batch]]:
    return place.subject.training_batches(
        dataset,
        length=LENGTH,
        micro_batch=ROWS,
        accumulation=ACCUMULATION,
        seed=place.seed,
        first_step=first,
        cycle=cycle,
    )


def _padded(batches: Sequence[Batch], step: int) -> list[Batch]:
    """The same with every sequence cut off somewhere, the second half of them sooner."""
    generator = torch.Generator().manual_seed(step)
    padded = []
    for number, batch in enumerate(batches):
        rows, length = batch.tokens.shape[0], batch.tokens.shape[1] - 1
        ends = torch.randint(
            length // 4, length // (number + 1) + 1, (rows, 1), generator=generator
        )
        padded.append(Batch(batch.tokens, torch.arange(length)[None] < ends))
    return padded


def _script(place: _Place, dataset: Path, curve: Curve) -> None:
    def build() -> Instance:
        return place.subject.build(CONFIG, device="cpu", dtype="bfloat16", seed=place.seed)

    steps, file = place.extent.steps, place.folder / "half.apr"
    instance = build()
    _steps(place, instance, dataset, range(steps // 2), curve)
    instance.save_checkpoint(file, _PROVENANCE)
    resumed = build()
    position = resumed.load_checkpoint(file, _PROVENANCE)
    _steps(place, resumed, dataset, range(position // ACCUMULATION, steps), curve)


def _steps(place: _Place, instance: Instance, dataset: Path, steps: range, curve: Curve) -> None:
    heldout = place.subject.heldout_batches(dataset, length=LENGTH, batch=ROWS)
    stream, extent = _stream(place, dataset, steps.start), place.extent
    for step in steps:
        rate = place.subject.learning_rate(
            step, peak=PEAK, warm_up=extent.warm_up, total=extent.steps
        )
        metrics = instance.train_step(_padded(next(stream), step), lr=rate)
        curve.losses.append(metrics.train_loss)
        curve.norms.append(metrics.grad_norm)
        if step % extent.every == extent.every - 1:
            curve.heldout.append(instance.evaluate(heldout))


def _loop(place: _Place, dataset: Path, curve: Curve) -> None:
    instance = place.subject.build(
        CONFIG, device="cpu", dtype="float32", seed=place.seed, lr=PEAK / 2
    )
    whole = [one for step in _stream(place, dataset, 0, cycle=False) for one in step]
    batches = whole[-place.extent.batches :]
    log = place.folder / "loop.jsonl"
    result = instance.run(batches, steps=len(batches) + 4, log=log)
    curve.losses = [float(line["train_loss"]) for line in result.logged]
    curve.norms = [float(line["grad_norm"]) for line in result.logged]
    curve.ending = result.status


def _command(place: _Place, dataset: Path, curve: Curve) -> None:
    subject, folder, extent = place.subject, place.folder, place.extent
    run = folder / "run"
    words = options(
        init=initial_model(folder / "initial", CONFIG),
        tokenizer=folder / "tokenizer",
        dataset=dataset,
        run_dir=run,
        device="cpu",
        dtype="float32",
        seq_length=LENGTH,
        num_steps=extent.steps,
        steps_per_epoch=2 * extent.every,
        batch_size=ROWS,
        accumulation=ACCUMULATION,
        lr=PEAK,
        warmup=extent.warm_up,
        seed=place.seed,
        no_progress=True,
    )
    code = run_command(subject, "pretrain", *words)
    seen = subject.run_directory(run)
    log = read_log(seen)
    curve.losses = [float(line["train_loss"]) for line in log]
    curve.norms = [float(line["grad_norm"]) for line in log]
    epochs = sorted((seen / "ckpt").glob("epoch-*.metadata.json"))
    curve.heldout = [float(json.loads(path.read_text())["val_loss"]) for path in epochs]
    curve.ending = f"{code} {json.loads((seen / 'outcome.json').read_text())['status']}"
