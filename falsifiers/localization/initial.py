"""Parameters that should be a file's: the first that is not, and what it is instead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from falsifiers.localization.findings import UNKNOWN, Finding, Look
from falsifiers.localization.shapes_of_error import guesses, places_in_words
from falsifiers.reference import gguf_weights
from falsifiers.run_directory import weights_of

Tensors = Mapping[str, Tensor]


def file_weights(path: Path) -> Tensors | None:
    """The weights of an APR, GGUF or safetensors file, read without the trainer, or None."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if files and all(file.suffix == ".safetensors" for file in files):
        return {n: t.float() for file in files for n, t in load_file(file).items()}
    if path.suffix == ".apr":
        return {n: torch.from_numpy(value.copy()) for n, value in weights_of(path).items()}
    if path.suffix == ".gguf":
        return gguf_weights.load(path)[1]
    return None


def judge_parameters(ours: Tensors, right: Tensors, source: str) -> Look:
    """Each parameter that is not bit for bit what `source` holds, in the order of the model."""
    look = Look()
    for name in [*ours, *(n for n in right if n not in ours)]:
        for fault in _faults(name, ours, right):
            where = name.removeprefix("model.")
            look.findings.append(Finding("parameters", where, source, math.inf, fault))
    return look


def _faults(name: str, ours: Tensors, right: Tensors) -> Iterator[str]:
    if name not in ours:
        yield "is in the file and not in the model"
    elif name not in right:
        # A tied head has no entry of its own.
        yield "is in the model and not in the file"
    else:
        value = ours[name].detach()
        wanted = right[name].to(value.device)
        if value.shape != wanted.shape or not torch.equal(value, wanted):
            yield _instead(name, value, wanted, right)


def _instead(name: str, value: Tensor, wanted: Tensor, right: Tensors) -> str:
    for other, tensor in right.items():
        if (
            other != name
            and tensor.shape == value.shape
            and torch.equal(value, tensor.to(value.device))
        ):
            return f"holds {other} instead"
    exact = wanted.double()
    for words, guess in guesses(value, exact):
        if guess.shape == value.shape and torch.allclose(value.double(), guess, 1e-6, 1e-12):
            return words
    if value.shape == wanted.shape and value.ndim == 1 and bool((value == value[0]).all()):
        return f"never set: all {float(value[0]):g}"
    if value.shape == wanted.shape:
        both = torch.stack((value.flatten(), wanted.flatten()))
        if value.numel() > 2 and abs(float(torch.corrcoef(both)[0, 1])) < 0.1:
            return "not the file's: unrelated numbers, as if never loaded"
    return f"{UNKNOWN}; {places_in_words(value, exact)}".rstrip("; ")
