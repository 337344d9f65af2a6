"""Small training runs through the subject's command line, each made once and shared.

A run is a matter of seconds: a tiny model, a vocabulary of bytes, a corpus of a few kilobytes. Runs
under a planted defect have a command line of their own and so are never shared with clean ones.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falsifiers.made_once import made_once
from falsifiers.subject import Configuration, Subject

if TYPE_CHECKING:
    from torch import Tensor

LENGTH = 32
"""Targets of a sequence."""

RUN_DIR = "RUN-DIRECTORY"
_TIMEOUT = 300


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended: its folder, its exit code, and what it wrote to standard error."""

    folder: Path
    exit_code: int
    messages: str


@dataclass(frozen=True)
class TinyRun:
    """Which corpus a run trains on, and its options besides model, tokenizer and folders.

    True stands for a flag.
    """

    corpus: str
    options: Mapping[str, Any]


_LEARNING: Mapping[str, Any] = {
    "num-steps": 100,
    "steps-per-epoch": 20,
    "batch-size": 4,
    "lr": 0.003,
    "warmup": 10,
    "seed": 0,
}
_DEFAULTS: Mapping[str, Any] = {"num-steps": 1200, "batch-size": 4, "data-end": "halt"}
RUNS: Mapping[str, TinyRun] = {
    "learning": TinyRun("sentences", _LEARNING),
    "repeated": TinyRun("sentences", _LEARNING),
    # As far as it is looked at; within the warm-up the rates are those of the longer run.
    "other-seed": TinyRun("sentences", {**_LEARNING, "seed": 1, "num-steps": 11}),
    # What is held out is unlike the rest: its loss rises from the first epoch on.
    "foreign": TinyRun("foreign", {**_LEARNING, "num-steps": 160}),
    # A corpus small enough to be memorised: its held-out loss falls, then rises.
    "overfit": TinyRun("few", {**_LEARNING, "num-steps": 240, "steps-per-epoch": 8}),
    "diverging": TinyRun(
        "sentences", {"num-steps": 200, "steps-per-epoch": 20, "batch-size": 4, "lr": 100.0}
    ),
    # The rate still rises in the second epoch, which therefore ends with the worse held-out loss,
    # and with what was saved within it.
    "growing": TinyRun(
        "foreign",
        {
            **_LEARNING,
            "num-steps": 13,
            "steps-per-epoch": 3,
            "lr": 0.6,
            "warmup": 12,
            "checkpoint-every": 2,
        },
    ),
    "halted": TinyRun(
        "few", {"num-steps": 6, "batch-size": 4, "data-end": "halt", "lr": 0.001, "warmup": 1}
    ),
    # Long enough for a mode's own warm-up, and soon over because the data ends.
    "finetune-defaults": TinyRun("few", _DEFAULTS),
    "scratch-defaults": TinyRun("few", {**_DEFAULTS, "mode": "from-scratch"}),
    "scratch-target": TinyRun("few", {**_DEFAULTS, "mode": "from-scratch", "target-loss": 1.5}),
    # Every window of the corpus in every step, so that their order cannot matter.
    "whole": TinyRun(
        "few",
        {
            "num-steps": 3,
            "batch-size": 5,
            "accumulation": 2,
            "lr": 0.01,
            "warmup": 1,
            "deterministic": True,
        },
    ),
}


def tiny_run(subject: Subject, name: str, config: Configuration, device: str) -> FinishedRun:
    """The run of `RUNS` called `name` with a model of `config` on `device`."""
    run = RUNS[name]
    arguments = _arguments(run, _inputs(config), dataset(subject, run.corpus), device)
    return made_run(name, subject.command("pretrain", *arguments), device)


def _arguments(run: TinyRun, inputs: Path, corpus: Path, device: str) -> list[str]:
    options: dict[str, Any] = {
        "device": device,
        "init": inputs,
        "tokenizer": byte_tokenizer(),
        "dataset": corpus,
        "run-dir": RUN_DIR,
        "seq-length": LENGTH,
        "dtype": "float32",
        "compile": "off",
        **run.options,
    }
    return option_words(options)


def option_words(options: Mapping[str, Any]) -> list[str]:
    words = ["--no-progress"]
    for name, value in options.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def made_run(name: str, command: Sequence[str], device: str) -> FinishedRun:
    def make(folder: Path) -> None:
        run = str(folder / "run")
        done = run_process([run if word == RUN_DIR else word for word in command], device)
        if not (folder / "run" / "outcome.json").exists():
            raise RuntimeError(f"exit code {done.returncode}: no run: {done.stderr[-800:]}")
        (folder / "exit-code").write_text(str(done.returncode))
        (folder / "messages").write_text(done.stderr)

    folder = made_once(name, command, make)
    exit_code = int((folder / "exit-code").read_text())
    return FinishedRun(folder / "run", exit_code, (folder / "messages").read_text())


def run_process(command: Sequence[str], device: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if device == "cpu":
        # Tiny tensors gain nothing from threads, and waiting threads starve other test workers.
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=_TIMEOUT, check=False
    )


def init_weights(config: Configuration) -> dict[str, Tensor]:
    """The weights that a tiny run of `config` starts from, float32 by name."""
    from falsifiers.weight_files import random_weights

    return random_weights(config, 3)


def windows(shard: Path, length: int, *, padded: bool) -> tuple[Tensor, Tensor | None]:
    """The windows of one shard of little-endian u32 ids, and which of their targets count.

    Window i is ids ``[i*length, i*length + length]``; its last id is the next one's first.

    Args:
        padded: fill up the last window with id 0 and mask that, instead of leaving it out.

    Returns:
        int64 ``[windows, length + 1]`` and bool ``[windows, length]``, None where all count.
    """
    import numpy as np
    import torch

    ids = np.fromfile(shard, dtype="<u4").astype(np.int64)
    targets = len(ids) - 1
    count = -(-targets // length) if padded else targets // length
    full = np.zeros(count * length + 1, dtype=np.int64)
    full[: min(len(ids), len(full))] = ids[: len(full)]
    tokens = np.stack([full[i * length : (i + 1) * length + 1] for i in range(count)])
    mask = torch.arange(count * length).reshape(count, length) < targets
    return torch.from_numpy(tokens), None if bool(mask.all()) else mask


def _inputs(config: Configuration) -> Path:
    """A Hugging Face folder with weights of `config`."""
    from falsifiers.weight_files import write_folder

    def make(folder: Path) -> None:
        write_folder(folder / "weights", config, init_weights(config))

    return made_once("model", json.dumps(config, sort_keys=True), make) / "weights"


def byte_tokenizer() -> Path:
    """Byte-level BPE without merges: the 256 bytes and one token that ends a text."""

    def make(folder: Path) -> None:
        from tokenizers.pre_tokenizers import ByteLevel

        tokens = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
        (folder / "encoder.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
        (folder / "vocab.bpe").write_text("#version: 0.2\n")

    return made_once("tokenizer", "", make)


def dataset(subject: Subject, name: str) -> Path:
    """The folder of a prepared corpus: sentences, foreign or few."""
    texts = made_once("texts", name, lambda folder: _write_texts(folder, name))
    command = subject.command(
        "prepare", str(texts / "train"), "--heldout", str(texts / "heldout.txt"),
        "--tokenizer", str(byte_tokenizer()), "--out", RUN_DIR, "--workers", "1",
    )  # fmt: skip

    def make(folder: Path) -> None:
        out = str(folder / "dataset")
        done = run_process([out if word == RUN_DIR else word for word in command], "cpu")
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}: no corpus: {done.stderr[-800:]}")

    return made_once(f"corpus-{name}", command, make) / "dataset"


def _write_texts(folder: Path, name: str) -> None:
    """``train/*.txt`` and ``heldout.txt``: sentences, or for ``foreign`` digits held out."""
    (folder / "train").mkdir()
    documents = {"sentences": 40, "foreign": 40, "few": 3}[name]
    for number in range(documents):
        (folder / "train" / f"{number}.txt").write_text(_sentences(number))
    heldout = _digits() if name == "foreign" else "".join(_sentences(n) for n in range(900, 904))
    (folder / "heldout.txt").write_text(heldout)


def _sentences(seed: int) -> str:
    draw = random.Random(seed)
    subjects = ("the fox", "a hen", "my old dog", "one grey owl", "this cat", "the small bear")
    verbs = ("sees", "hears", "follows", "likes", "leaves", "finds")
    places = ("by the river", "in the wood", "near a barn", "at dawn", "under the hill")
    lines = (
        f"{draw.choice(subjects)} {draw.choice(verbs)} {draw.choice(subjects)} "
        f"{draw.choice(places)}.\n"
        for _ in range(3)
    )
    return "".join(lines)


def _digits() -> str:
    draw = random.Random(7)
    return "".join(draw.choice("0123456789+-=") for _ in range(300))
