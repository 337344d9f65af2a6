"""The held-out stream as batches of one shape, for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch

from trainer.batch import TokenBatch
from trainer.corpus.pinning import pinned
from trainer.corpus.shards import TokenStream


class HeldoutBatches(Sequence[TokenBatch]):
    """Windows ``[i*L, i*L + L]`` of a stream, read when asked for.

    Every token but the stream's first is a target exactly once. The last window is filled up with
    id 0 and the last batch with whole windows of it, all masked, so that compiled evaluation meets
    a single shape ``[batch_size, seq_length + 1]``.

    Args:
        stream: at least 2 tokens.
        limit_tokens: at most so many targets, in whole windows spread evenly over the stream, but
            at least one window. None is all.
    """

    def __init__(
        self, stream: TokenStream, seq_length: int, batch_size: int, limit_tokens: int | None
    ) -> None:
        self._stream, self._length, self._size = stream, seq_length, batch_size
        total = -(-(len(stream) - 1) // seq_length)
        kept = total if limit_tokens is None else min(total, max(1, limit_tokens // seq_length))
        self._windows = np.arange(kept, dtype=np.int64) * total // kept

    def __len__(self) -> int:
        return -(-len(self._windows) // self._size)

    @overload
    def __getitem__(self, index: int) -> TokenBatch: ...

    @overload
    def __getitem__(self, index: slice) -> list[TokenBatch]: ...

    def __getitem__(self, index: int | slice) -> TokenBatch | list[TokenBatch]:
        if isinstance(index, slice):
            return [self._batch(i) for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        return self._batch(position)

    def _batch(self, index: int) -> TokenBatch:
        windows = self._windows[index * self._size : (index + 1) * self._size]
        tokens = np.zeros((self._size, self._length + 1), dtype=np.int64)
        mask = np.zeros((self._size, self._length), dtype=np.bool_)
        for row, window in enumerate(windows):
            start = int(window) * self._length
            targets = min(self._length, len(self._stream) - 1 - start)
            self._stream.read(start, tokens[row, : targets + 1])
            mask[row, :targets] = True
        target_mask = None if mask.all() else torch.from_numpy(mask)
        return pinned(TokenBatch(torch.from_numpy(tokens), target_mask))
