"""A tokenizer inside the metadata of an APR file, next to the model that it belongs to.

The format has keys for the vocabulary, in id order, and for the merges. They do not say how text is
split, normalised and decoded, without which ids differ; that, in the words of tokenizer.json, goes
to `tokenizer.pipeline`, a key of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import TokenizerError

VOCABULARY = "tokenizer.vocabulary"
MERGES = "tokenizer.merges"
_PIPELINE = "tokenizer.pipeline"
_OUTSIDE = "tokenizer.outside_model"
"""Ids that the BPE model does not have: tokens added beside it, and numbers that no token has."""


def metadata_of(
    description: Mapping[str, Any], vocab_size: int, end_of_text: int | None
) -> dict[str, Any]:
    """APR metadata of the tokenizer that `description`, the content of a tokenizer.json, describes.

    Raises:
        TokenizerError: it is not a BPE, or a merge is not two tokens separated by a space.
    """
    model = dict(description["model"])
    if model.get("type") != "BPE":
        raise TokenizerError(f"a tokenizer of type {model.get('type')!r} cannot be embedded")
    tokens: dict[int, str] = {id_: token for token, id_ in model.pop("vocab").items()}
    inside = set(tokens)
    added = description.get("added_tokens") or []
    tokens |= {token["id"]: token["content"] for token in added}
    metadata = {
        VOCABULARY: [tokens.get(id_, "") for id_ in range(vocab_size)],
        MERGES: [_joined(merge) for merge in model.pop("merges")],
        _PIPELINE: {**description, "model": model},
        _OUTSIDE: [id_ for id_ in range(vocab_size) if id_ not in inside],
        "tokenizer.vocab_size": vocab_size,
        "tokenizer.model_type": "BPE",
    }
    if end_of_text is not None:
        metadata["tokenizer.eos_token_id"] = end_of_text
    return metadata


def _joined(merge: str | list[str]) -> str:
    joined = merge if isinstance(merge, str) else " ".join(merge)
    if joined.count(" ") != 1:
        raise TokenizerError(f"the merge {merge!r} is not two tokens without spaces; cannot embed")
    return joined


def description_in(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What a tokenizer.json would hold, from the metadata of the APR file at `path`.

    Raises:
        TokenizerError: no tokenizer is embedded, or not enough of one to give the right ids.
    """
    if VOCABULARY not in metadata:
        raise TokenizerError(f"{path}: no tokenizer is embedded; pass one with --tokenizer")
    pipeline = metadata.get(_PIPELINE)
    if not isinstance(pipeline, dict) or not isinstance(pipeline.get("model"), dict):
        raise TokenizerError(
            f"{path}: the embedded tokenizer does not say how it splits text ({_PIPELINE}), and "
            "guessing gives wrong ids; pass its tokenizer.json with --tokenizer"
        )
    tokens, merges = _strings(metadata, VOCABULARY, path), _strings(metadata, MERGES, path)
    outside = metadata.get(_OUTSIDE, [])
    if not isinstance(outside, list) or not all(type(id_) is int for id_ in outside):
        raise TokenizerError(f"{path}: {_OUTSIDE} must be a list of ids")
    absent = set(outside)
    vocabulary = {token: id_ for id_, token in enumerate(tokens) if id_ not in absent}
    if any(merge.count(" ") != 1 for merge in merges):
        raise TokenizerError(f"{path}: a merge is not two tokens separated by a space")
    model = {**pipeline["model"], "vocab": vocabulary, "merges": [m.split(" ") for m in merges]}
    return {**pipeline, "model": model}


def _strings(metadata: Mapping[str, Any], key: str, path: Path) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TokenizerError(f"{path}: {key} must be a list of strings")
    return value
