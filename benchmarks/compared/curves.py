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
from benchmarks.compared.models import configuration
from falsifiers.subject import Batch, Instance, Subject
from falsifiers.subject_parts import Provenance

CONFIG = configuration("qwen2", vocab_size=VOCABULARY, rope_theta=10000.0)
LENGTH, ROWS, ACCUMULATION = 32, 4, 2
STEPS, PEAK, WARM_UP, EVERY = 40, 6e-3, 6, 10
_PROVENANCE = Provenance(dataset_sha256="c0" * 32, accumulation=ACCUMULATION)


@dataclass
class Curve:
    """One run as it was logged. `ending`: its status, or the exception that ended it."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    heldout: list[float] = field(default_factory=list)
    ending: str = "OK"


def watch(subject: Subject, folder: Path, seed: int) -> dict[str, Curve]:
    """The three runs of one seed, by name. Nothing that goes wrong in them is raised."""
    curves = {"script": Curve(), "loop": Curve(), "command": Curve()}
    try:
        dataset = prepared(subject, folder, sentences(40, 0), "".join(sentences(4, 900)))
    except Exception as error:
        for curve in curves.values():
            curve.ending = _named(error)
        return curves
    _guarded(curves["script"], lambda curve: _script(subject, dataset, folder, seed, curve))
    _guarded(curves["loop"], lambda curve: _loop(subject, dataset, folder, seed, curve))
    _guarded(curves["command"], lambda curve: _command(subject, dataset, folder, seed, curve))
    return curves


def _guarded(curve: Curve, run: object) -> None:
    try:
        run(curve)  # type: ignore[operator]
    except Exception as error:
        curve.ending = _named(error)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _stream(
    subject: Subject, dataset: Path, seed: int, first: int, *, cycle: bool = True
) -> Iterator[Sequence[Batch]]:
    return subject.training_batches(
        dataset,
        length=LENGTH,
        micro_batch=ROWS,
        accumulation=ACCUMULATION,
        seed=seed,
        first_step=first,
        cycle=cycle,
    )


def _padded(batches: Sequence[Batch], step: int) -> list[Batch]:
    """The same with every sequence cut off somewhere, the second half of them sooner."""
    generator = torch.Generator().manual_seed(step)
    padded = []
    for number, batch in enumerate(batches):
        rows, length = batch.tokens.shape[0], batch.tokens.shape[1] - 1
        ends = torch.randint(length // 4, length // (number + 1) + 1, (rows, 1), generator=generator)
        padded.append(Batch(batch.tokens, torch.arange(length)[None] < ends))
    return padded


def _script(subject: Subject, dataset: Path, folder: Path, seed: int, curve: Curve) -> None:
    heldout = subject.heldout_batches(dataset, length=LENGTH, batch=ROWS)
    instance = subject.build(CONFIG, device="cpu", dtype="bfloat16", seed=seed)
    _steps(subject, instance, dataset, seed, range(STEPS // 2), heldout, curve)
    instance.save_checkpoint(folder / "half.apr", _PROVENANCE)
    resumed = subject.build(CONFIG, device="cpu", dtype="bfloat16", seed=seed)
    position = resumed.load_checkpoint(folder / "half.apr", _PROVENANCE)
    rest = range(position // ACCUMULATION, STEPS)
    _steps(subject, resumed, dataset, seed, rest, heldout, curve)


def _steps(
    subject: Subject,
    instance: Instance,
    dataset: Path,
    seed: int,
    steps: range,
    heldout: Sequence[Batch],
    curve: Curve,
) -> None:
    stream = _stream(subject, dataset, seed, steps.start)
    for step in steps:
        rate = subject.learning_rate(step, peak=PEAK, warm_up=WARM_UP, total=STEPS)
        metrics = instance.train_step(_padded(next(stream), step), lr=rate)
        curve.losses.append(metrics.train_loss)
        curve.norms.append(metrics.grad_norm)
        if step % EVERY == EVERY - 1:
            curve.heldout.append(instance.evaluate(heldout))


def _loop(subject: Subject, dataset: Path, folder: Path, seed: int, curve: Curve) -> None:
    instance = subject.build(CONFIG, device="cpu", dtype="float32", seed=seed, lr=PEAK / 2)
    batches = [one for step in _stream(subject, dataset, seed, 0, cycle=False) for one in step]
    result = instance.run(batches, steps=len(batches) + 4, log=folder / "loop.jsonl")
    curve.losses = [float(line["train_loss"]) for line in result.logged]
    curve.norms = [float(line["grad_norm"]) for line in result.logged]
    curve.ending = result.status


def _command(subject: Subject, dataset: Path, folder: Path, seed: int, curve: Curve) -> None:
    run = folder / "run"
    words = options(
        init=initial_model(folder / "initial", CONFIG),
        tokenizer=folder / "tokenizer",
        dataset=dataset,
        run_dir=run,
        device="cpu",
        dtype="float32",
        seq_length=LENGTH,
        num_steps=STEPS,
        steps_per_epoch=2 * EVERY,
        batch_size=ROWS,
        accumulation=ACCUMULATION,
        lr=PEAK,
        warmup=WARM_UP,
        seed=seed,
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
