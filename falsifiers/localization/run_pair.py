"""Two run directories: the first step, quantity and tensor at which they differ.

What a log shows in one step follows from the weights that the step before left, so a loss that
differs where rate, loss and norm of every earlier step agree is blamed on the optimizer before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from falsifiers.apr_container import AprContainer, AprDamaged
from falsifiers.localization.findings import Finding, Look
from falsifiers.run_directory import Epoch, RunRecord

_DATA = ("dataset_sha256", "seed", "seq_length", "micro_batch_size", "accumulation", "world_size")
_ORDER = ("step", "lr", "train_loss", "grad_norm")
_TRAINING = "__training__.optim."


def compare_runs(one: Path, other: Path) -> Look:
    """Where they part: what they were asked for, then the log, then the checkpoints."""
    a, b = RunRecord(one), RunRecord(other)
    look = Look()
    for found in (_identities(a, b), _logs(a, b), _checkpoints(a, b)):
        look.findings += list(found)
    return look


def _finding(quantity: str, where: str, tensor: str, fault: str) -> Finding:
    return Finding(quantity, where, tensor, math.inf, fault)


def _identities(a: RunRecord, b: RunRecord) -> Iterator[Finding]:
    for name in sorted(a.identity.keys() | b.identity.keys()):
        x, y = a.identity.get(name), b.identity.get(name)
        if x != y:
            quantity = "data" if name in _DATA else "settings"
            yield _finding(quantity, f"run.json, {name}", name, f"{x!r} and {y!r}")


def _logs(a: RunRecord, b: RunRecord) -> Iterator[Finding]:
    for index, (x, y) in enumerate(zip(a.log, b.log, strict=False)):
        for name in _ORDER:
            if x.get(name) != y.get(name):
                quantity, why = _cause(name, index)
                said = f"{name} is {x.get(name)!r} and {y.get(name)!r}; {why}"
                yield _finding(quantity, f"step {x.get('step', index)}, {quantity}", name, said)
                return
    if len(a.log) != len(b.log):
        said = f"{len(a.log)} and {len(b.log)} steps were logged; those in both agree"
        yield _finding("log", f"step {min(len(a.log), len(b.log))}, log", "train.jsonl", said)


def _cause(name: str, index: int) -> tuple[str, str]:
    """Which quantity was first, and why that one."""
    if name == "step":
        return "data", "the runs are not at the same step"
    if name == "lr":
        return "schedule", "the rate is asked for before anything is computed"
    if name == "grad_norm":
        return "backward", "the loss of the same step agrees"
    if index == 0:
        return "forward", "it is the first step: initial weights, data or the forward pass"
    return "optimizer", (
        f"rate, loss and norm agree up to step {index - 1}: its clipping, moments or weights, "
        f"or the data of step {index}"
    )


def _checkpoints(a: RunRecord, b: RunRecord) -> Iterator[Finding]:
    for x, y in zip(a.epochs, b.epochs, strict=False):
        found = list(_tensors(x, y))
        if found:
            yield from found
            return
    if len(a.epochs) != len(b.epochs):
        said = f"{len(a.epochs)} and {len(b.epochs)} epochs left checkpoints"
        yield _finding("checkpoints", "ckpt", "files", said)


def _tensors(x: Epoch, y: Epoch) -> Iterator[Finding]:
    """The first tensor that differs in each of weights, first and second moments, and how many."""
    where = f"{x.path.stem}"
    try:
        files = AprContainer(x.path), AprContainer(y.path)
    except (AprDamaged, OSError, ValueError) as error:
        yield _finding("checkpoints", where, "file", f"cannot be read: {error}")
        return
    names = [*files[0].names, *(n for n in files[1].names if n not in files[0].names)]
    differing = [n for n in names if not _same(files, n)]
    kinds = {
        "weights": [n for n in differing if not n.startswith(_TRAINING)],
        "first moments": [n for n in differing if n.endswith(".exp_avg")],
        "second moments": [n for n in differing if n.endswith(".exp_avg_sq")],
    }
    for kind, found in kinds.items():
        if found:
            said = f"{len(found)} tensors differ, {found[0]} first"
            if all(n in files[i].names for i in (0, 1) for n in found[:1]):
                p, q = (f.tensor(found[0]) for f in files)
                if p.shape == q.shape:
                    gap = float(np.abs(p.astype(np.float64) - q.astype(np.float64)).max())
                    said += f", by at most {gap:.3g}"
            step = x.checkpoint.training.get("step", "?")
            yield _finding(kind, f"{where} (step {step}), {kind}", found[0], said)


def _same(files: tuple[AprContainer, AprContainer], name: str) -> bool:
    if any(name not in file.names for file in files):
        return False
    p, q = (file.tensor(name) for file in files)
    return p.shape == q.shape and p.tobytes() == q.tobytes()
