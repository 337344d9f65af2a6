"""The hash that ties a dataset to the tokenizer that made it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from trainer.errors import TokenizerError


def tokenizer_sha256(path: Path) -> str:
    """SHA-256 of the file that `tokenizer.load_tokenizer` would read at `path`, in hex.

    GPT-2's pair counts as one file: encoder.json followed by vocab.bpe.

    Raises:
        TokenizerError: nothing of the kind is there.
    """
    digest = hashlib.sha256()
    try:
        for file in _files(path):
            with file.open("rb") as opened:
                while content := opened.read(2**20):
                    digest.update(content)
    except OSError as error:
        raise TokenizerError(
            f"{error.filename}: {error.strerror}; check the path to the tokenizer"
        ) from error
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / "tokenizer.json").is_file():
        return [path / "tokenizer.json"]
    return [path / "encoder.json", path / "vocab.bpe"]
