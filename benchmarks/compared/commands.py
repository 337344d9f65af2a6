"""The trainer's command line, run in this process: a start of its own would take seconds."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from falsifiers.subject import Configuration, Subject
from falsifiers.weight_files import random_weights, write_folder

VOCABULARY = 257
_MODULE = "trainer"


def run_command(subject: Subject, *words: str) -> int:
    """What the subject's command does with `words`; the exit code.

    A command that is not the trainer's own, because a defect put another in its place, is started
    as it stands.
    """
    argv = subject.command(*words)
    if _MODULE not in argv:
        return subprocess.run(argv, capture_output=True, check=False).returncode
    own = argv[argv.index(_MODULE) + 1 :]
    main = importlib.import_module(f"{_MODULE}.cli").main
    before, sys.argv = sys.argv, ["aprtrain", *own]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return int(main(own))
    finally:
        sys.argv = before


def options(**values: Any) -> list[str]:
    """Words of a command line; True stands for a flag."""
    words: list[str] = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return words


def tokenizer(folder: Path) -> Path:
    """Byte-level BPE without merges: 256 bytes and an end."""
    from tokenizers.pre_tokenizers import ByteLevel

    folder.mkdir(parents=True)
    tokens = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    (folder / "encoder.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    return folder


def prepared(subject: Subject, folder: Path, documents: Sequence[str], heldout: str) -> Path:
    """A dataset that the subject's own command made of texts, and ``tokenizer`` beside it.

    Raises:
        RuntimeError: the command failed.
    """
    texts = folder / "texts"
    texts.mkdir(parents=True)
    for number, text in enumerate(documents):
        (texts / f"{number}.txt").write_text(text)
    (folder / "heldout.txt").write_text(heldout)
    words = options(
        heldout=folder / "heldout.txt",
        tokenizer=tokenizer(folder / "tokenizer"),
        out=folder / "dataset",
        workers=1,
    )
    code = run_command(subject, "prepare", str(texts), *words)
    if code:
        raise RuntimeError(f"prepare ended with exit code {code}")
    return folder / "dataset"


def initial_model(folder: Path, config: Configuration) -> Path:
    """A Hugging Face folder of random weights."""
    return write_folder(folder, config, random_weights(config, 3))


def sentences(count: int, seed: int) -> list[str]:
    """Short texts with a grammar that a tiny model can learn."""
    import random

    draw = random.Random(seed)
    who = ("the fox", "a hen", "my old dog", "one grey owl", "this cat", "the small bear")
    does = ("sees", "hears", "follows", "likes", "leaves", "finds")
    where = ("by the river", "in the wood", "near a barn", "at dawn", "under the hill")
    return [
        "".join(
            f"{draw.choice(who)} {draw.choice(does)} {draw.choice(who)} {draw.choice(where)}.\n"
            for _ in range(3)
        )
        for _ in range(count)
    ]


def read_log(run: Path) -> list[Mapping[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
