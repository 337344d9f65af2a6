"""Reading one file: what it is, and its token ids. This runs in the worker processes.

A file is read twice: once to be judged and hashed, so that duplicates and the split are decided
before anything is encoded, and once to be encoded. A file that changes in between is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.corpus.sources import Skip, SourceFile
from trainer.errors import DataError
from trainer.tokenizer import Tokenizer, load_tokenizer

PIECE_IDS = 2**20
"""Ids of a shard that are handled at once: 4 MiB."""

_CHANGED = (
    "{}: the file changed while the dataset was prepared; run the command again once nothing "
    "writes to the sources"
)

Ids = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Document:
    """A file that goes into the dataset.

    Attributes:
        file: where it is.
        sha256: of its content, 32 bytes.
    """

    file: SourceFile
    sha256: bytes


@dataclass(frozen=True, slots=True)
class EncodeTask:
    """Part of the work on a split: consecutive texts, or up to `PIECE_IDS` ids of one shard.

    Attributes:
        first: index of the first document within its split.
        documents: the documents.
        start: first id, of a shard.
    """

    first: int
    documents: tuple[Document, ...]
    start: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive ids of one document.

    Attributes:
        document: index of the document within its split.
        start: index of the first id within the document.
        ids: little-endian u32.
    """

    document: int
    start: int
    ids: Ids


class DocumentReader:
    """Judges and encodes files with one tokenizer.

    Args:
        tokenizer: see `tokenizer.load_tokenizer`.
        max_file_bytes: larger texts are skipped. The memory of a worker is about 180 times this.
    """

    def __init__(self, tokenizer: Path, max_file_bytes: int) -> None:
        self.tokenizer: Tokenizer = load_tokenizer(tokenizer)
        self._max_file_bytes = max_file_bytes

    def survey(self, files: tuple[SourceFile, ...]) -> list[Document | Skip]:
        """Each file as a document, or why it is none.

        Raises:
            DataError: a shard is not whole u32 ids or has one outside the vocabulary.
        """
        return [self._survey_shard(f) if f.is_shard else self._survey_text(f) for f in files]

    def encode(self, task: EncodeTask) -> list[Piece]:
        """The ids of a task's documents: a text ends with end-of-text, a shard is taken as it is.

        Raises:
            DataError: a file is not the one that was surveyed.
        """
        return [
            Piece(index, task.start, self._ids(document, task.start))
            for index, document in enumerate(task.documents, task.first)
        ]

    def _survey_text(self, file: SourceFile) -> Document | Skip:
        if file.size > self._max_file_bytes:
            return Skip.TOO_LARGE
        try:
            content = Path(file.path).read_bytes()
        except OSError:
            return Skip.UNREADABLE
        if not content:
            return Skip.EMPTY
        if b"\0" in content:
            return Skip.BINARY
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            return Skip.NOT_UTF8
        return Document(file, hashlib.sha256(content).digest())

    def _survey_shard(self, file: SourceFile) -> Document | Skip:
        if file.size == 0:
            return Skip.EMPTY
        if file.size % 4:
            raise DataError(
                f"{file.path}: {file.size} bytes are not whole u32 token ids; the shard is "
                "truncated"
            )
        digest = hashlib.sha256()
        for start in range(0, file.size // 4, PIECE_IDS):
            digest.update(self._shard_ids(file, start).data)
        return Document(file, digest.digest())

    def _ids(self, document: Document, start: int) -> Ids:
        if document.file.is_shard:
            return self._shard_ids(document.file, start)
        content = Path(document.file.path).read_bytes()
        require_unchanged(document, hashlib.sha256(content))
        ids = self.tokenizer.encode(content.decode("utf-8"))
        return np.array([*ids, self.tokenizer.end_of_text], dtype="<u4")

    def _shard_ids(self, file: SourceFile, start: int) -> Ids:
        ids = np.fromfile(file.path, dtype="<u4", count=PIECE_IDS, offset=4 * start)
        if len(ids) < min(PIECE_IDS, file.size // 4 - start):
            raise DataError(_CHANGED.format(file.path))
        largest = int(ids.max())
        if largest >= self.tokenizer.vocab_size:
            raise DataError(
                f"{file.path}: token id {largest} is outside the tokenizer's "
                f"{self.tokenizer.vocab_size} ids; encode it with this tokenizer"
            )
        return ids


def require_unchanged(document: Document, content: hashlib._Hash) -> None:
    """Refuse a document whose content is no longer what was surveyed. Raises DataError."""
    if content.digest() != document.sha256:
        raise DataError(_CHANGED.format(document.file.path))
