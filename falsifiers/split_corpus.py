"""Small texts, what the subject's command makes of them, and which documents are on which side."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from falsifiers import tiny_runs
from falsifiers.made_once import made_once
from falsifiers.subject import Subject

_END = "<|endoftext|>"


@dataclass(frozen=True)
class Split:
    """How a preparation ended, and what it left.

    Attributes:
        status: exit code of the command.
        told: all that it wrote for people.
        train, heldout: the documents of either stream in its order, none where there is no stream.
        shards: files of ids that it left, finished or not.
    """

    status: int
    told: str
    train: tuple[str, ...]
    heldout: tuple[str, ...]
    shards: int

    def left_out(self) -> Mapping[str, int]:
        """How many files it says that it left out, by reason: lines ``skipped: N REASON``."""
        lines = re.findall(r"^skipped: ([\d,]+) (\w+)$", self.told, re.MULTILINE)
        return {reason: int(count.replace(",", "")) for count, reason in lines}


def text(number: int) -> str:
    """A document that no other number has; printable ASCII, which is one id a character."""
    return f"document-{number}"


def written(texts: Mapping[str, str]) -> Path:
    """A folder with these texts by path."""

    def write(folder: Path) -> None:
        for name, content in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content)

    return made_once("split-texts", sorted(texts.items()), write)


def prepared(subject: Subject, sources: Path, *how: str) -> Split:
    """What the prepare command makes of the folder `sources`, `how` being its other options.

    Made once for each command, so under a source defect anew.
    """
    tokenizer = str(tiny_runs.byte_tokenizer())
    words = (str(sources), *how, "--tokenizer", tokenizer, "--out", tiny_runs.RUN_DIR)
    command = subject.command("prepare", *words, "--workers", "1")

    def make(made: Path) -> None:
        out = str(made / "dataset")
        argv = [out if word == tiny_runs.RUN_DIR else word for word in command]
        done = tiny_runs.run_process(argv, "cpu")
        (made / "status").write_text(str(done.returncode))
        (made / "told").write_text(done.stdout + done.stderr)

    made = made_once("split", command, make)
    dataset = made / "dataset"
    return Split(
        status=int((made / "status").read_text()),
        told=(made / "told").read_text(),
        train=_documents(dataset, "train"),
        heldout=_documents(dataset, "heldout"),
        shards=len(list(dataset.glob("*.bin*"))),
    )


def _documents(dataset: Path, split: str) -> tuple[str, ...]:
    """The texts of a stream, by the published layout of shards; the end of each is an id."""
    ids = json.loads((tiny_runs.byte_tokenizer() / "encoder.json").read_text())
    tokens = {number: token for token, number in ids.items()}
    shards = sorted(dataset.glob(f"{split}-*.bin"), key=lambda path: path.name.encode())
    stream = "".join(tokens[i] for path in shards for i in np.fromfile(path, "<u4").tolist())
    return tuple(stream.split(_END)[:-1])
