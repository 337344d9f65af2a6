"""What a training run left behind, read by nobody who wrote it.

The layout is that of C-TRAIN-PRETRAIN: ``train.jsonl`` with one object an optimizer step,
``run.json`` (``identity``, ``device``, ``devices``, ``residency``, ``determinism``),
``outcome.json``, and for each epoch ``ckpt/epoch-NNN.apr`` beside ``ckpt/epoch-NNN.metadata.json``.
A checkpoint within an epoch is ``ckpt/step-NNNNNNNN.apr``, by its steps.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falsifiers.apr_container import AprContainer, AprDamaged

_EPOCH = re.compile(r"epoch-(\d{3,})\.(apr|metadata\.json)")
_TRAINING = "__training__."
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Checkpoint:
    """What an epoch's file holds, all of it recomputed from its bytes.

    Attributes:
        fault: why it is not a whole and finite training state; empty if it is one.
        checksum: CRC-32 of the file.
        optimizer_sha: SHA-256 of AdamW's state as INV-TRAIN-003 defines it.
        shapes: of the weights, by name.
        training: the metadata object of that name: step, epoch, tokens_seen, …
    """

    fault: str
    checksum: int = 0
    optimizer_sha: str = ""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Epoch:
    """One epoch: the fields of its metadata file, empty without one, and its checkpoint."""

    number: int
    metadata: Mapping[str, Any]
    path: Path
    checkpoint: Checkpoint


class RunRecord:
    """A run directory.

    Attributes:
        root: the folder.
        log: one mapping a line; a line that is no JSON object is an empty one.
        run, outcome: the files of that name; empty without one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = _lines(root / "train.jsonl")
        self.run = _object(root / "run.json")
        self.outcome = _object(root / "outcome.json")

    @cached_property
    def epochs(self) -> list[Epoch]:
        """Every epoch that left a file of any kind, in order. The files are read in threads."""
        matches = (_EPOCH.fullmatch(path.name) for path in (self.root / "ckpt").glob("epoch-*"))
        stems = sorted({f"epoch-{match[1]}" for match in matches if match})
        paths = [self.root / "ckpt" / f"{stem}.apr" for stem in stems]
        with ThreadPoolExecutor(4) as threads:
            checkpoints = list(threads.map(inspect, paths))
        return [
            Epoch(
                int(path.stem.removeprefix("epoch-")),
                _object(path.with_suffix(".metadata.json")),
                path,
                checkpoint,
            )
            for path, checkpoint in zip(paths, checkpoints, strict=True)
        ]

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decided the numbers of the run."""
        identity: Mapping[str, Any] = self.run.get("identity", {})
        return identity

    @property
    def val_losses(self) -> list[float]:
        """The held-out loss of each epoch, nats per token."""
        return [float(epoch.metadata.get("val_loss", "nan")) for epoch in self.epochs]

    @property
    def step_tokens(self) -> int:
        """Target tokens of one optimizer step."""
        sizes = ("micro_batch_size", "accumulation", "seq_length", "world_size")
        return int(np.prod([self.identity[size] for size in sizes]))

    def epoch_lines(self, index: int) -> list[dict[str, Any]]:
        """The log's lines of the epoch at `index`, by the steps that the checkpoints name."""
        ends = [0, *(epoch.checkpoint.training.get("step", 0) for epoch in self.epochs)]
        return self.log[ends[index] : ends[index + 1]]

    def sha256(self) -> str:
        """Digest of the record: log, run, outcome, metadata, and each checkpoint's inspection."""
        digest = hashlib.sha256()
        names = ["train.jsonl", "run.json", "outcome.json"]
        names += [f"ckpt/{e.path.with_suffix('.metadata.json').name}" for e in self.epochs]
        for name in names:
            path = self.root / name
            content = path.read_bytes() if path.exists() else b""
            digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        for epoch in self.epochs:
            found = epoch.checkpoint
            line = f"{epoch.path.name}\0{found.checksum:08x}\0{found.optimizer_sha}\n"
            digest.update(line.encode())
        return digest.hexdigest()


_inspected: dict[tuple[str, int, int], Checkpoint] = {}


def inspect(path: Path) -> Checkpoint:
    """Read a checkpoint from its first byte to its last; once a process for an unchanged file."""
    try:
        stat = path.stat()
    except OSError as error:
        return Checkpoint(f"{path.name}: {error.strerror}")
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _inspected:
        _inspected[key] = _inspect(path)
    return _inspected[key]


def _inspect(path: Path) -> Checkpoint:
    try:
        file = AprContainer(path)
    except (AprDamaged, OSError, ValueError) as error:
        return Checkpoint(str(error) or repr(error))
    weights = [name for name in file.names if not name.startswith(_TRAINING)]
    moments = {f"{_TRAINING}optim.{name}.{m}": name for name in weights for m in _MOMENTS}
    training = file.metadata.get("training", {})
    if missing := sorted(moments.keys() - set(file.names)):
        return Checkpoint(f"{path.name}: {len(missing)} moments are missing, {missing[0]} first")
    spoiled = [name for name in file.names if not np.isfinite(file.tensor(name)).all()]
    misshapen = [m for m, name in moments.items() if file.shape(m) != file.shape(name)]
    fault = f"{path.name}: not finite: {spoiled}; misshapen: {misshapen}"
    return Checkpoint(
        fault=fault if spoiled or misshapen else "",
        checksum=file.checksum,
        optimizer_sha=_optimizer_sha(file, weights, int(training.get("step", 0))),
        shapes={name: file.shape(name) for name in weights},
        training=training,
    )


def _optimizer_sha(file: AprContainer, weights: list[str], step: int) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights, key=str.encode):
        digest.update(name.encode() + b"\0")
        for moment in _MOMENTS:
            values = file.tensor(f"{_TRAINING}optim.{name}.{moment}")
            digest.update(np.ascontiguousarray(values).data)
    digest.update(step.to_bytes(8, "little"))
    return digest.hexdigest()


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [_parsed(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _object(path: Path) -> dict[str, Any]:
    return _parsed(path.read_text(encoding="utf-8")) if path.exists() else {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def weights_of(path: Path) -> dict[str, NDArray[np.float32]]:
    """The weights in a checkpoint by name, without the training state.

    Raises:
        AprDamaged, OSError: it cannot be read.
    """
    file = AprContainer(path)
    return {name: file.tensor(name) for name in file.names if not name.startswith(_TRAINING)}
