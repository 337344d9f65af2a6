"""Token shards: written one after the other, read as one stream through memory maps."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.corpus.documents import Piece
from trainer.corpus.manifest import Shard
from trainer.errors import DataError
from trainer.weights.durable import durable_file

ID_BYTES = 4
_CHECK_IDS = 2**21


@dataclass(frozen=True)
class WrittenShard:
    """A finished shard, and where the next one goes on.

    Attributes:
        shard: what was written.
        document: index of the document that its last id came from.
        next_token: index, within that document, of the first id that is not in it.
    """

    shard: Shard
    document: int
    next_token: int


def shard_name(split: str, index: int) -> str:
    """File name of a shard; lexical order is the order of the stream."""
    return f"{split}-{index:05d}.bin"


def write_shards(
    folder: Path, split: str, first_index: int, pieces: Iterable[Piece], shard_tokens: int
) -> Iterator[WrittenShard]:
    """Write a stream of ids into shards of `shard_tokens`, each complete on disk when yielded.

    Raises:
        OSError: a shard cannot be written. The unfinished one is removed.
    """
    stream = iter(pieces)
    piece = next(stream, None)
    index = first_index
    while piece is not None:
        name, digest, tokens = shard_name(split, index), hashlib.sha256(), 0
        with durable_file(folder / name) as file:
            while piece is not None and tokens < shard_tokens:
                head = piece.ids[: shard_tokens - tokens]
                file.write(head.data)
                digest.update(head.data)
                tokens += len(head)
                document, next_token = piece.document, piece.start + len(head)
                piece = _after(piece, len(head)) or next(stream, None)
        yield WrittenShard(Shard(name, tokens, digest.hexdigest()), document, next_token)
        index += 1


def skip_written(pieces: Iterable[Piece], document: int, next_token: int) -> Iterator[Piece]:
    """What of `pieces` comes after the id before `next_token` of `document`."""
    for piece in pieces:
        done = next_token - piece.start if piece.document == document else 0
        rest = _after(piece, max(done, 0))
        if rest is not None:
            yield rest


def _after(piece: Piece, count: int) -> Piece | None:
    ids = piece.ids[count:]
    return Piece(piece.document, piece.start + count, ids) if len(ids) else None


def require_intact(path: Path, shard: Shard, vocab_size: int) -> None:
    """Read a whole shard and compare it with its manifest.

    Raises:
        DataError: another size or hash, or an id outside the vocabulary.
    """
    digest, largest = hashlib.sha256(), 0
    ids = map_shard(path, shard)
    for start in range(0, len(ids), _CHECK_IDS):
        part = ids[start : start + _CHECK_IDS]
        digest.update(part.data)
        largest = max(largest, int(part.max()))
    if digest.hexdigest() != shard.sha256:
        raise DataError(
            f"{path}: sha256 is {digest.hexdigest()}, the manifest says {shard.sha256}; "
            "the shard was changed or damaged, prepare the dataset again"
        )
    if largest >= vocab_size:
        raise DataError(
            f"{path}: token id {largest} is outside the manifest's vocab_size of {vocab_size}; "
            "prepare the dataset again with its tokenizer"
        )


def map_shard(path: Path, shard: Shard) -> NDArray[np.uint32]:
    """The ids of a shard, memory-mapped.

    Raises:
        DataError: the file is missing, or not as long as its manifest says.
    """
    try:
        size = path.stat().st_size
        if size != shard.tokens * ID_BYTES:
            raise DataError(
                f"{path}: {size} bytes, the manifest says {shard.tokens * ID_BYTES}; the shard is "
                "truncated or of another dataset, prepare the dataset again"
            )
        return np.memmap(path, dtype="<u4", mode="r")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; prepare the dataset again") from error


class TokenStream:
    """Shards as one sequence of ids."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._parts = [map_shard(folder / shard.file, shard) for shard in shards]
        self._ends = list(accumulate(len(part) for part in self._parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, out: NDArray[np.int64]) -> None:
        """Fill `out` with the ids from `start` on; they must exist."""
        index, filled = bisect_right(self._ends, start), 0
        while filled < len(out):
            part = self._parts[index]
            offset = start + filled - (self._ends[index] - len(part))
            taken = part[offset : offset + len(out) - filled]
            out[filled : filled + len(taken)] = taken
            filled += len(taken)
            index += 1
