"""The whole training state of an instance, copied and compared bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from falsifiers.subject_parts import Provenance

if TYPE_CHECKING:
    from falsifiers.subject import Batch, Configuration, Instance

ACCUMULATION = 2
PROVENANCE = Provenance(dataset_sha256="5a" * 32, accumulation=ACCUMULATION, seed=11)
MOMENTS = ("exp_avg", "exp_avg_sq")


def state_of(instance: Instance) -> dict[str, Tensor]:
    """Copies of weights, both moments and step counts, under the names that files use.

    Counts, which files do not hold by tensor, go by ``__training__.optim.{name}.step``.
    """
    state = {name: value.clone() for name, value in instance.parameters().items()}
    for name, moments in instance.optimizer_state().items():
        prefix = f"__training__.optim.{name}"
        state[f"{prefix}.exp_avg"] = moments.exp_avg.clone()
        state[f"{prefix}.exp_avg_sq"] = moments.exp_avg_sq.clone()
        state[f"{prefix}.step"] = torch.tensor(moments.step)
    return state


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names whose tensors are not the same bits, or that one side lacks."""
    names = sorted(one.keys() | other.keys())
    return [n for n in names if n not in one or n not in other or not _same(one[n], other[n])]


def _same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == torch.float32:  # a zero's sign and a NaN's bits are part of a state
        one, other = one.contiguous().view(torch.int32), other.contiguous().view(torch.int32)
    return torch.equal(one, other.to(one.device))


def window(config: Configuration, case_seed: int, step: int, length: int) -> list[Batch]:
    """The micro-batches of one optimizer step of a run: unequal, and others at each step."""
    from falsifiers.inputs import unequal_micro_batches

    return unequal_micro_batches(config, ACCUMULATION, length, 1000 * case_seed + 10 * step)


def small(configuration: Configuration, vocabulary: int, layers: int) -> dict[str, object]:
    """The same architecture with fewer tokens and layers, for files that are tried by hundreds."""
    return {**configuration, "vocab_size": vocabulary, "num_layers": layers}


def write_tokenizer(folder: Path) -> tuple[list[str], list[str]]:
    """GPT-2 files of the 256 bytes, two merges and an end; their tokens and merges in order."""
    from tokenizers.pre_tokenizers import ByteLevel

    merges = ["h e", "t he"]
    tokens = [*sorted(ByteLevel.alphabet()), "he", "the", "<|endoftext|>"]
    folder.mkdir()
    (folder / "encoder.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "vocab.bpe").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return tokens, merges
