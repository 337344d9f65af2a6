"""manifest.json: what a dataset is, and the hashes that prove it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.corpus.split import HELDOUT, SPLITS, TRAIN
from trainer.errors import DataError
from trainer.weights.durable import durable_file

MANIFEST_NAME = "manifest.json"
FORMAT = "aprtrain-dataset"
FORMAT_VERSION = 1
_SHARD_NAME = re.compile(r"(train|heldout)-[0-9]{5,}\.bin")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """A file of little-endian u32 token ids.

    Attributes:
        file: its name in the dataset's folder.
        tokens: ids in it.
        sha256: of its bytes, in hex.
    """

    file: str
    tokens: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json.

    Attributes:
        tokenizer_sha256: see `tokenizer_identity.tokenizer_sha256`.
        vocab_size: every id is smaller.
        end_of_text: the id after each document.
        shards: by split, in the order of the token stream.
        plan_sha256: of the documents and options that decide every byte.
        details: for people: options, counts, what was skipped and how the split was made.
    """

    tokenizer_sha256: str
    vocab_size: int
    end_of_text: int
    shards: Mapping[str, tuple[Shard, ...]]
    plan_sha256: str
    details: Mapping[str, Any]

    @property
    def train_tokens(self) -> int:
        """Ids of the training stream."""
        return sum(shard.tokens for shard in self.shards[TRAIN])

    @property
    def heldout_tokens(self) -> int:
        """Ids of the held-out stream."""
        return sum(shard.tokens for shard in self.shards[HELDOUT])

    @property
    def sha256(self) -> str:
        """Digest of the dataset: its tokenizer, and the name, length and hash of every shard."""
        lines = [f"{self.tokenizer_sha256} {self.vocab_size} {self.end_of_text}"]
        for split in SPLITS:
            lines += [f"{shard.file} {shard.tokens} {shard.sha256}" for shard in self.shards[split]]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write manifest.json into `folder`, completely or not at all. Raises OSError."""
        fields = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "sha256": self.sha256,
            "plan_sha256": self.plan_sha256,
            "tokenizer": {
                "sha256": self.tokenizer_sha256,
                "vocab_size": self.vocab_size,
                "end_of_text": self.end_of_text,
            },
            **self.details,
            "shards": {split: [vars(shard) for shard in self.shards[split]] for split in SPLITS},
        }
        with durable_file(folder / MANIFEST_NAME) as file:
            file.write(json.dumps(fields, indent=2).encode() + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the dataset at `folder`.

    Raises:
        DataError: it is missing, damaged, of a newer version, or contradicts itself.
    """
    path = folder / MANIFEST_NAME
    try:
        fields = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: no such file; make a dataset with aprtrain prepare") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: unreadable: {error}; prepare the dataset again") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise DataError(f"{path}: not the manifest of a dataset made by aprtrain prepare")
    version = fields.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DataError(
            f"{path}: format_version {version!r}, this aprtrain reads up to {FORMAT_VERSION}; "
            "update aprtrain or prepare the dataset again"
        )
    try:
        manifest = _parse(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: damaged: {type(error).__name__}: {error}; prepare the dataset again"
        ) from error
    if manifest.sha256 != fields.get("sha256"):
        raise DataError(
            f"{path}: sha256 says {fields.get('sha256')!r}, its shards give {manifest.sha256}; "
            "the manifest was changed, prepare the dataset again"
        )
    return manifest


def _parse(fields: Mapping[str, Any]) -> Manifest:
    tokenizer = fields["tokenizer"]
    shards = {split: tuple(map(_shard, fields["shards"][split])) for split in SPLITS}
    known = {"format", "format_version", "sha256", "plan_sha256", "tokenizer", "shards"}
    return Manifest(
        tokenizer_sha256=_matching(_SHA256, tokenizer["sha256"]),
        vocab_size=_positive(tokenizer["vocab_size"]),
        end_of_text=_natural(tokenizer["end_of_text"]),
        shards=shards,
        plan_sha256=_matching(_SHA256, fields["plan_sha256"]),
        details={name: value for name, value in fields.items() if name not in known},
    )


def _shard(fields: Mapping[str, Any]) -> Shard:
    return Shard(
        # A name only: a manifest must not lead out of its folder.
        file=_matching(_SHARD_NAME, fields["file"]),
        tokens=_positive(fields["tokens"]),
        sha256=_matching(_SHA256, fields["sha256"]),
    )


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{value!r} does not match {pattern.pattern}")
    return value


def _natural(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not an integer of at least 0")
    return value


def _positive(value: object) -> int:
    if _natural(value) == 0:
        raise ValueError("0 is not a positive count")
    return _natural(value)
