"""Fine-tuning runs to look at: a rehearsal in this process, and a real one through the command.

The rehearsal starts a tiny model from weights that predict its made-up text, and goes through the
trainer's own loop, checkpoint and evaluation. The real one starts from published weights on a GPU;
it takes a minute, is made once and shared.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falsifiers.made_once import made_once
from falsifiers.subject import Configuration, Subject

STEPS, BATCH, LENGTH = 6, 2, 32
"""Of the rehearsal; targets a sequence."""

REAL: Mapping[str, Any] = {
    "num-steps": 40,
    "steps-per-epoch": 20,
    "batch-size": 4,
    "seq-length": 256,
    "seed": 0,
    "device": "cuda",
}
"""Options of the real run, besides its folders; rate and warm-up are the mode's own."""

_HERE, _TIMEOUT = "FOLDER", 1800


@dataclass(frozen=True)
class Finetuned:
    """A fine-tuning run that has ended.

    Attributes:
        status: how it says that it ended.
        exit_code: of the command; 0 for a rehearsal that ended ``OK``.
        planned: optimizer steps that were asked for.
        log: one mapping an optimizer step.
        targets: target tokens of a step.
        wall_seconds: of the whole run; measured here for a rehearsal, recorded by a real one.
        loop_seconds: of the training loop, where it could be timed by itself, else of the run.
        checkpoint: the last file that it left.
        val_loss: the last held-out loss, nats per token.
        words: everything that it wrote for people, its log included.
    """

    status: str
    exit_code: int
    planned: int
    log: Sequence[Mapping[str, Any]]
    targets: int
    wall_seconds: float
    loop_seconds: float
    checkpoint: Path
    val_loss: float
    words: str


def rehearsal(
    subject: Subject, config: Configuration, device: str, dtype: str, seed: int, folder: Path
) -> Finetuned:
    """A tiny model of `config`, its head untied, through every stage of a run."""
    from falsifiers.predictive_weights import predictive_weights, successor_batch, untied
    from falsifiers.subject_parts import Provenance
    from falsifiers.weight_files import write_folder

    own = untied(config)
    weights = write_folder(folder / "weights", own, predictive_weights(own, seed))
    said = io.StringIO()
    began = time.perf_counter()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        instance = subject.build_pretrain(
            device=device,
            dtype=dtype,
            seed=seed,
            init_arch=subject.read_architecture(weights),
            init_path=weights,
        )
        data = [
            successor_batch(own, BATCH, LENGTH, 100 * seed + n).to(instance.device)
            for n in range(STEPS + 2)
        ]
        log = folder / "train.jsonl"
        loop_began = time.perf_counter()
        result = instance.run(data[:STEPS], steps=STEPS, log=log)
        loop_seconds = time.perf_counter() - loop_began
        instance.save_checkpoint(folder / "epoch-000.apr", Provenance("0" * 64, 1))
        val_loss = instance.evaluate(data[STEPS:])
    return Finetuned(
        status=result.status,
        exit_code=0 if result.status == "OK" else 1,
        planned=STEPS,
        log=result.logged,
        targets=BATCH * LENGTH,
        wall_seconds=time.perf_counter() - began,
        loop_seconds=loop_seconds,
        checkpoint=folder / "epoch-000.apr",
        val_loss=val_loss,
        words="\n".join((said.getvalue(), result.message, log.read_text(encoding="utf-8"))),
    )


def real_run(subject: Subject, weights: Path, options: Mapping[str, Any] = REAL) -> Finetuned:
    """A run of the pretrain command from a GGUF file, on the reference texts.

    Raises:
        RuntimeError: the command left no run, or no corpus could be prepared.
    """
    from falsifiers.run_directory import RunRecord

    words = ["--no-progress", "--init", str(weights), "--run-dir", f"{_HERE}/run"]
    words += ["--dataset", str(_corpus(subject, weights))]
    words += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = subject.command("pretrain", *words)
    folder = made_once("finetune", command, lambda made: _execute(command, made))
    run = RunRecord(subject.run_directory(folder / "run"))
    texts = [folder / "messages", *(run.root / n for n in ("train.jsonl", "outcome.json"))]
    return Finetuned(
        status=run.outcome["status"],
        exit_code=int((folder / "exit-code").read_text()),
        planned=int(options["num-steps"]),
        log=run.log,
        targets=run.step_tokens,
        wall_seconds=run.outcome["wall_seconds"],
        loop_seconds=run.outcome["wall_seconds"],
        checkpoint=run.epochs[-1].path,
        val_loss=run.val_losses[-1],
        words="\n".join(path.read_text(encoding="utf-8") for path in texts),
    )


def _corpus(subject: Subject, weights: Path) -> Path:
    """Source code to train on, an article held out, with the tokenizer in the weight file."""
    from falsifiers.tokens import TEXTS

    texts = made_once("finetune-texts", "", _copy_texts)
    command = subject.command(
        "prepare", str(texts / "train"), "--heldout", str(TEXTS / "wikipedia.txt"),
        "--tokenizer", str(weights), "--out", f"{_HERE}/dataset", "--workers", "1",
    )  # fmt: skip
    made = made_once("finetune-corpus", command, lambda folder: _execute(command, folder))
    if not (made / "dataset").is_dir():
        raise RuntimeError(f"no corpus: {(made / 'messages').read_text()[-800:]}")
    return made / "dataset"


def _copy_texts(folder: Path) -> None:
    from falsifiers.tokens import TEXTS

    (folder / "train").mkdir()
    shutil.copy(TEXTS / "python_source.txt", folder / "train" / "python_source.txt")


def _execute(command: Sequence[str], folder: Path) -> None:
    """Run a command whose words name its folder, and keep its exit code and messages there."""
    words = [
        word.replace(_HERE, str(folder), 1) if word.startswith(_HERE) else word for word in command
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, env=dict(os.environ), timeout=_TIMEOUT, check=False
    )
    (folder / "exit-code").write_text(str(done.returncode))
    (folder / "messages").write_text(done.stderr)
    if done.returncode and not (folder / "run" / "outcome.json").exists():
        summary = json.dumps(done.stderr[-800:])
        raise RuntimeError(f"exit code {done.returncode}, nothing was left: {summary}")
