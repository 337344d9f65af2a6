"""Corpora of known token ids: `.bin` sources, the shards prepared of them, and their batches."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aprverify.outcomes import NotRun
from falsifiers import tiny_runs
from falsifiers.made_once import made_once
from falsifiers.subject import Subject

Ids = NDArray[np.uint32]
IDS = 250
"""Ids of the byte tokenizer that are drawn from; those above are left to mark a place with."""


def draw_ids(count: int, seed: int) -> Ids:
    """`count` uniform ids."""
    return np.random.default_rng(seed).integers(IDS, size=count).astype("<u4")


def prepare(subject: Subject, sources: Mapping[str, Ids], *, shard_tokens: int) -> Path:
    """The dataset that the subject's command makes of `sources` by file name, in that order.

    Made once for each command and content, so under a source defect anew.

    Raises:
        RuntimeError: the command failed.
    """
    content = [(name, ids.astype("<u4").tobytes()) for name, ids in sources.items()]
    folder = made_once("token-sources", content, partial(write_sources, content))
    command = subject.command(
        "prepare", *(str(folder / name) for name, _ in content),
        "--heldout", str(folder / "heldout" / "heldout.bin"),
        "--tokenizer", str(tiny_runs.byte_tokenizer()), "--out", tiny_runs.RUN_DIR,
        "--workers", "1", "--shard-tokens", str(shard_tokens),
    )  # fmt: skip

    def make(made: Path) -> None:
        out = str(made / "dataset")
        words = [out if word == tiny_runs.RUN_DIR else word for word in command]
        done = tiny_runs.run_process(words, "cpu")
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}: no corpus: {done.stderr[-800:]}")

    return made_once("token-shards", command, make) / "dataset"


def write_sources(content: Sequence[tuple[str, bytes]], folder: Path) -> None:
    """Write files by name, and a held-out one in a folder of its own."""
    for name, ids in content:
        (folder / name).write_bytes(ids)
    (folder / "heldout").mkdir(exist_ok=True)
    (folder / "heldout" / "heldout.bin").write_bytes(draw_ids(70, 9).tobytes())


def shards(dataset: Path) -> list[Ids]:
    """The training shards in the lexical order of their names, as little-endian u32."""
    paths = sorted(dataset.glob("train-*.bin"), key=lambda path: path.name.encode())
    return [np.frombuffer(path.read_bytes(), dtype="<u4") for path in paths]


def heldout_ids(dataset: Path) -> Ids:
    """All that is held out, as one stream."""
    paths = sorted(dataset.glob("heldout-*.bin"), key=lambda path: path.name.encode())
    return np.concatenate([np.frombuffer(path.read_bytes(), dtype="<u4") for path in paths])


def seal(dataset: Path) -> None:
    """Let ``manifest.json`` say of each shard, and of all of them, what is now in the files.

    The layout is the published one: ``shards`` by split, each with ``file``, ``tokens`` and
    ``sha256``; ``sha256`` of the whole is over a line for the tokenizer and a line a shard.

    Raises:
        NotRun: the dataset has no such manifest.
    """
    path = dataset / "manifest.json"
    try:
        fields = json.loads(path.read_bytes())
        tokenizer = fields["tokenizer"]
        lines = [" ".join(str(tokenizer[n]) for n in ("sha256", "vocab_size", "end_of_text"))]
        for shard in (*fields["shards"]["train"], *fields["shards"]["heldout"]):
            content = (dataset / shard["file"]).read_bytes()
            shard |= {"tokens": len(content) // 4, "sha256": hashlib.sha256(content).hexdigest()}
            lines.append(f"{shard['file']} {shard['tokens']} {shard['sha256']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        detail = f"{path}: no manifest in the published layout: {error!r}"
        raise NotRun("subject", detail, "compare with falsifiers/shard_corpus.py") from error
    fields["sha256"] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    path.write_text(json.dumps(fields))


def windows_of(stream: Ids, length: int) -> dict[bytes, int]:
    """The number of each window of ``length + 1`` ids, by its int64 bytes."""
    ids = stream.astype(np.int64)
    count = (len(ids) - 1) // length
    return {ids[i * length : (i + 1) * length + 1].tobytes(): i for i in range(count)}


def order(
    subject: Subject, dataset: Path, known: Mapping[bytes, int], steps: int, **options: Any
) -> list[list[int]]:
    """Numbers of the windows of each of the first `steps` steps of a rank; -1 is no window."""
    batches = subject.training_batches(dataset, **options)
    taken = [
        [known.get(row.numpy().tobytes(), -1) for batch in step for row in batch.tokens]
        for step in itertools.islice(batches, steps)
    ]
    batches.close()  # type: ignore[attr-defined]
    return taken


def flat(orders: Sequence[Sequence[int]]) -> list[int]:
    """All numbers in order."""
    return [number for step in orders for number in step]
