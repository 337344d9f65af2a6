"""Text to token ids, byte-level BPE, from the three kinds of file that models come with.

A GGUF file stores a vocabulary and merges but only the *name* of its pre-tokenizer; what the name
means is defined in llama.cpp's vocabulary loader. `smollm` splits every digit off first, then
applies the GPT-2 pattern; leaving the digits together changes the ids of most source code and is
invisible in a round trip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as _Engine
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from trainer.errors import TokenizerError, WeightsError

_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
"""Token types of the GGUF specification."""

_END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """Byte-level BPE.

    Attributes:
        vocab_size: one more than the largest id that can occur, so rows an embedding must have.
        end_of_text: the id that separates documents, or None if the vocabulary has none.
    """

    def __init__(self, engine: _Engine, vocab_size: int) -> None:
        # Text that spells a control token is data: it must not end a document or open a turn.
        engine.encode_special_tokens = True
        self._engine = engine
        self.vocab_size = vocab_size
        self.end_of_text: int | None = engine.token_to_id(_END_OF_TEXT)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`. Nothing is added around it, and no control token is parsed out of it."""
        return list(self._engine.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, control tokens included."""
        return str(self._engine.decode(list(ids), skip_special_tokens=False))


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer at `path`.

    Args:
        path: a tokenizer.json, a folder with one, a folder with GPT-2's encoder.json and vocab.bpe,
            or a GGUF file.

    Raises:
        TokenizerError: nothing of the kind is there, or it is damaged.
    """
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise TokenizerError(f"{path}: no such file; check the path to the tokenizer")
    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    return _from_gguf(path) if is_gguf else _from_hugging_face(path)


def require_fitting_vocabulary(tokenizer_size: int, model_size: int, *, with_init: bool) -> None:
    """INV-ARCH-370M-006: every id has an embedding row; from scratch, every row has an id too.

    Published models round their embedding up (151665 ids in 151936 rows for Qwen2), so with initial
    weights a smaller tokenizer passes.

    Raises:
        TokenizerError: with both sizes.
    """
    fits = tokenizer_size <= model_size if with_init else tokenizer_size == model_size
    if not fits:
        relation = "at most" if with_init else "exactly"
        raise TokenizerError(
            f"the tokenizer has {tokenizer_size} ids, the model's vocab_size is {model_size}; "
            f"{relation} {model_size} are needed, pass the tokenizer that belongs to the model"
        )


def _from_folder(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return _from_hugging_face(folder / "tokenizer.json")
    vocabulary, merges = folder / "encoder.json", folder / "vocab.bpe"
    if vocabulary.is_file() and merges.is_file():
        return _from_gpt2(vocabulary, merges)
    raise TokenizerError(
        f"{folder}: neither a tokenizer.json nor GPT-2's encoder.json and vocab.bpe is there"
    )


def _from_hugging_face(path: Path) -> Tokenizer:
    try:
        engine = _Engine.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path}: not a tokenizer.json: {error}") from error
    return Tokenizer(engine, _rows(engine.get_vocab(with_added_tokens=True), path))


def _from_gpt2(vocabulary: Path, merges: Path) -> Tokenizer:
    try:
        ids = json.loads(vocabulary.read_text(encoding="utf-8"))
        lines = merges.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{vocabulary.parent}: unreadable: {error}") from error
    pairs = [line for line in lines if line and not line.startswith("#version")]
    engine = _byte_level(ids, pairs, pre_tokenizers.ByteLevel(add_prefix_space=False), vocabulary)
    if _END_OF_TEXT in ids:
        engine.add_special_tokens([AddedToken(_END_OF_TEXT, special=True, normalized=False)])
    return Tokenizer(engine, _rows(ids, vocabulary))


def _from_gguf(path: Path) -> Tokenizer:
    from trainer.weights.gguf_file import GgufFile

    try:
        file = GgufFile(path)
        model, kind = file.field("tokenizer.ggml.model"), file.field("tokenizer.ggml.pre")
        tokens, types = file.field("tokenizer.ggml.tokens"), file.field("tokenizer.ggml.token_type")
        merges = file.field("tokenizer.ggml.merges")
    except WeightsError as error:
        raise TokenizerError(str(error)) from error
    if model != "gpt2":
        raise TokenizerError(f"{path}: tokenizer model {model!r} is not byte-level BPE ('gpt2')")
    used = {
        token: index
        for index, (token, type_) in enumerate(zip(tokens, types, strict=True))
        if type_ != _UNUSED
    }
    normalizer, pre_tokenizer = _gguf_pre_tokenizer(kind, path)
    engine = _byte_level(used, merges, pre_tokenizer, path)
    if normalizer is not None:
        engine.normalizer = normalizer
    engine.add_special_tokens([_added(t, special=True) for t in used if types[used[t]] == _CONTROL])
    engine.add_tokens([_added(t, special=False) for t in used if types[used[t]] == _USER_DEFINED])
    return Tokenizer(engine, _rows(used, path))


def _added(token: str, *, special: bool) -> AddedToken:
    return AddedToken(token, special=special, normalized=False)


def _gguf_pre_tokenizer(kind: str, path: Path) -> tuple[Normalizer | None, PreTokenizer]:
    if kind in ("gpt-2", "gpt2"):
        return None, pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return None, pre_tokenizers.Sequence([digits, words])
    if kind == "qwen2":
        split = pre_tokenizers.Split(Regex(_QWEN2_PATTERN), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return normalizers.NFC(), pre_tokenizers.Sequence([split, byte_level])
    raise TokenizerError(
        f"{path}: pre-tokenizer {kind!r} is not one of gpt-2, smollm, qwen2; pass a tokenizer.json"
    )


def _byte_level(
    vocabulary: Mapping[str, int],
    merges: Sequence[str],
    pre_tokenizer: PreTokenizer,
    path: Path,
) -> _Engine:
    if any(merge.count(" ") != 1 for merge in merges):
        raise TokenizerError(f"{path}: a merge is not two tokens separated by a space")
    pairs = [(first, second) for first, _, second in (m.partition(" ") for m in merges)]
    try:
        engine = _Engine(BPE(dict(vocabulary), pairs))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path}: vocabulary and merges disagree: {error}") from error
    engine.pre_tokenizer = pre_tokenizer
    engine.decoder = ByteLevelDecoder()
    return engine


def _rows(vocabulary: Mapping[str, int], path: Path) -> int:
    if not vocabulary:
        raise TokenizerError(f"{path}: the vocabulary is empty")
    return max(vocabulary.values()) + 1
