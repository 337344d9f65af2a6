"""Text to token ids, byte-level BPE, from the four kinds of file that models come with.

A GGUF file stores a vocabulary and merges but only the *name* of its pre-tokenizer; what the name
means is defined in llama.cpp's vocabulary loader. `smollm` splits every digit off first, then
applies the GPT-2 pattern; leaving the digits together changes the ids of most source code and is
invisible in a round trip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as _Engine
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from trainer.errors import TokenizerError, WeightsError
from trainer.weights import apr_tokenizer
from trainer.weights.apr_layout import LEGACY_MAGIC, MAGIC

_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
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

    def to_json(self) -> str:
        """The content of the tokenizer.json that `load_tokenizer` reads as this tokenizer."""
        return str(self._engine.to_str())


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer at `path`.

    Args:
        path: a tokenizer.json, a folder with one, a folder with GPT-2's encoder.json and vocab.bpe,
            a GGUF file, or an APR file with an embedded tokenizer.

    Raises:
        TokenizerError: nothing of the kind is there, or it is damaged.
    """
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise TokenizerError(f"{path}: no such file; check the path to the tokenizer")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        return _from_gguf(path)
    return _from_apr(path) if magic in (MAGIC, LEGACY_MAGIC) else _from_hugging_face(path)


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


def has_tokenizer(path: Path) -> bool:
    """Whether the model at `path` comes with a tokenizer that `load_tokenizer` can look for.

    Raises:
        WeightsError: `path` is a damaged GGUF or APR file.
    """
    if path.is_dir():
        return any((path / name).is_file() for name in ("tokenizer.json", "encoder.json"))
    if not path.is_file():
        return False
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        from trainer.weights.gguf_file import GgufFile

        return GgufFile(path).has_field("tokenizer.ggml.tokens")
    if magic == MAGIC:
        from trainer.weights import apr_file

        return apr_tokenizer.VOCABULARY in apr_file.opened(path).metadata
    return False


def tokenizer_metadata(tokenizer: Tokenizer) -> dict[str, Any]:
    """APR metadata that embeds `tokenizer`; `load_tokenizer` gives it back with the same ids.

    Raises:
        TokenizerError: it is not a BPE whose merges are two tokens separated by a space.
    """
    return apr_tokenizer.metadata_of(
        json.loads(tokenizer.to_json()), tokenizer.vocab_size, tokenizer.end_of_text
    )


def _from_apr(path: Path) -> Tokenizer:
    from trainer.weights import apr_file

    try:
        metadata = apr_file.opened(path).metadata
    except WeightsError as error:
        raise TokenizerError(str(error)) from error
    description = apr_tokenizer.description_in(metadata, path)
    try:
        engine = _Engine.from_str(json.dumps(description))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path}: the embedded tokenizer is damaged: {error}") from error
    return Tokenizer(engine, _rows(engine.get_vocab(with_added_tokens=True), path))


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
    except (OSError, ValueError, RecursionError) as error:
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
        # GGUF writers leave empty lists out.
        listed = file.has_field("tokenizer.ggml.merges")
        merges = file.field("tokenizer.ggml.merges") if listed else []
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


@dataclass(frozen=True)
class GgufVocabulary:
    """A tokenizer in the terms of GGUF: `pre` names how text is split, `types` are by token."""

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]


def gguf_vocabulary(tokenizer: Tokenizer, rows: int) -> GgufVocabulary:
    """What a GGUF file stores of `tokenizer` for a model with `rows` rows in its embedding.

    Raises:
        TokenizerError: it splits text in none of the ways that have a name here, or is no BPE.
    """
    embedded = tokenizer_metadata(tokenizer)
    description = json.loads(tokenizer.to_json())
    added = {token["id"]: token["special"] for token in description["added_tokens"]}
    listed: list[str] = embedded[apr_tokenizer.VOCABULARY]
    tokens = [token or f"[PAD{id_}]" for id_, token in enumerate(listed)]
    tokens += [f"[PAD{id_}]" for id_ in range(len(tokens), rows)]
    kinds = {True: _CONTROL, False: _USER_DEFINED}
    types = [
        kinds[added[id_]] if id_ in added else _NORMAL if token else _UNUSED
        for id_, token in enumerate(listed)
    ]
    types += [_UNUSED] * (rows - len(types))
    return GgufVocabulary(
        _gguf_pre_name(description), tokens, types, embedded[apr_tokenizer.MERGES]
    )


def _gguf_pre_name(description: Mapping[str, Any]) -> str:
    found = _splitting(description)
    for kind in ("gpt-2", "smollm", "qwen2"):
        normalizer, pre_tokenizer = _gguf_pre_tokenizer(kind, Path())
        engine = _byte_level({}, [], pre_tokenizer, Path())
        if normalizer is not None:
            engine.normalizer = normalizer
        if _splitting(json.loads(engine.to_str())) == found:
            return kind
    raise TokenizerError(
        "GGUF has no name for how this tokenizer splits text (gpt-2, smollm and qwen2 are known); "
        "leave it out with --no-tokenizer"
    )


def _splitting(description: Mapping[str, Any]) -> str:
    """Normalizer and pre-tokenizer as text, without what does not touch ids: trim_offsets."""
    parts = json.dumps([description["normalizer"], description["pre_tokenizer"]], sort_keys=True)
    return parts.replace('"trim_offsets": false', '"trim_offsets": true')


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
