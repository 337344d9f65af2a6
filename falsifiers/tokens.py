"""Real text as token ids, with the tokenizer that belongs to the model.

Built here from the files themselves and not by the trainer, so that a tokenizer fault of the
trainer cannot make its own test pass. Reference texts stand in ``texts/``, with their hashes.
"""

from __future__ import annotations

import json
import math
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor

from falsifiers.reference.gguf_weights import open_file
from falsifiers.subject import Batch

TEXTS = Path(__file__).resolve().parent / "texts"
_QWEN2_WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pre-tokenizer that Qwen2 publishes in its tokenizer.json."""


@lru_cache(maxsize=4)
def read_tokens(weights: Path, text: str, count: int) -> Tensor:
    """The first `count` ids, int64 ``[count]``, of a reference text, by the GGUF's tokenizer.

    Raises:
        ValueError: the text is shorter, or the file names a pre-tokenizer unknown here.
    """
    ids = _gguf_tokenizer(weights).encode((TEXTS / text).read_text(encoding="utf-8")).ids
    if len(ids) < count:
        raise ValueError(f"{text} has {len(ids)} tokens, {count} were asked for")
    return torch.tensor(ids[:count])


def shuffled(tokens: Tensor, seed: int) -> Tensor:
    """The same ids in another order."""
    generator = torch.Generator().manual_seed(seed)
    return tokens[torch.randperm(len(tokens), generator=generator)]


@lru_cache(maxsize=1)
def _gguf_tokenizer(path: Path) -> Tokenizer:
    fields = open_file(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = _pairs(fields["tokenizer.ggml.merges"].contents())
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges))
    kind = fields["tokenizer.ggml.pre"].contents()
    if kind == "smollm":
        # Digits stand alone before the words are split; a round trip would not show the lack.
        digits = pre_tokenizers.Digits(individual_digits=True)
        in_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, in_words])
    elif kind == "qwen2":
        words = pre_tokenizers.Split(_QWEN2_WORDS, "isolated")
        in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, in_bytes])
        tokenizer.normalizer = normalizers.NFC()
    else:
        raise ValueError(f"{path}: pre-tokenizer {kind!r}: neither smollm nor qwen2")
    return tokenizer


@dataclass(frozen=True)
class Windows:
    """Windows of real text, int64 ``[count, length + 1]``, none overlapping another's targets."""

    tokens: Tensor

    def batches(self, size: int) -> Iterator[Batch]:
        """Consecutive batches of `size` windows."""
        for start in range(0, len(self.tokens) - size + 1, size):
            yield Batch(self.tokens[start : start + size])

    def unigram_entropy(self) -> float:
        """Entropy of the targets' frequencies, nats: what a model without context could reach."""
        counts = Counter(self.tokens[:, 1:].flatten().tolist())
        total = sum(counts.values())
        return -sum(n / total * math.log(n / total) for n in counts.values())


def source_windows(encoder: Path, merges: Path, count: int, length: int) -> Windows:
    """`count` windows of Python's standard library, in a fixed shuffled order, GPT-2 tokens.

    Raises:
        ValueError: the standard library is too short for so many.
    """
    ids: list[int] = []
    tokenizer = _gpt2_tokenizer(encoder, merges)
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        ids += tokenizer.encode(path.read_text(encoding="utf-8", errors="ignore")).ids
        if len(ids) > count * length:
            break
    else:
        raise ValueError(f"the standard library has {len(ids)} tokens, {count * length} are needed")
    windows = torch.tensor(ids[: count * length + 1]).unfold(0, length + 1, length)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    return Windows(windows[order])


def _gpt2_tokenizer(encoder: Path, merges: Path) -> Tokenizer:
    vocabulary = json.loads(encoder.read_text(encoding="utf-8"))
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs = _pairs(line for line in lines if line and not line.startswith("#version"))
    tokenizer = Tokenizer(BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _pairs(merges: Iterable[str]) -> list[tuple[str, str]]:
    return [(first, second) for first, second in (merge.split(" ") for merge in merges)]
