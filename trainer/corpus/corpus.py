"""A prepared dataset as batches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from trainer.batch import TokenBatch
from trainer.corpus.heldout import HeldoutBatches
from trainer.corpus.manifest import MANIFEST_NAME, Manifest, read_manifest
from trainer.corpus.sampler import StepShape, WindowOrder
from trainer.corpus.shards import TokenStream, require_intact
from trainer.corpus.split import HELDOUT, SPLITS, TRAIN
from trainer.corpus.steps import deliver
from trainer.corpus.workers import available_cores
from trainer.errors import DataError

VERIFY_THREADS = 8


class Corpus:
    """A dataset made by ``aprtrain prepare``, memory-mapped.

    Training window i is tokens ``[i*L, i*L + L]`` of the training stream, L = seq_length: L + 1
    ids, the last of which is the first of the next window. So every token but the stream's first,
    and fewer than L at its end, is a target exactly once an epoch.

    Attributes:
        path: the folder.
        manifest: what is in it.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._train = TokenStream(path, manifest.shards[TRAIN])
        self._heldout = TokenStream(path, manifest.shards[HELDOUT])

    @classmethod
    def open(cls, path: Path) -> Corpus:
        """The dataset at `path`, with its manifest and the size of every shard checked.

        Raises:
            DataError: it is missing, damaged, truncated, or of a newer version.
        """
        return cls(path, read_manifest(path))

    def verify(self) -> None:
        """Read every shard and check its hash and ids, in threads.

        Raises:
            DataError: the first shard that is not what the manifest says.
        """
        shards = [shard for split in SPLITS for shard in self.manifest.shards[split]]
        with ThreadPoolExecutor(min(VERIFY_THREADS, available_cores())) as threads:
            checks = [
                threads.submit(
                    require_intact, self.path / shard.file, shard, self.manifest.vocab_size
                )
                for shard in shards
            ]
            for check in checks:
                check.result()

    def training_steps(
        self,
        *,
        seq_length: int,
        micro_batch_size: int,
        accumulation: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        first_step: int = 0,
        cycle: bool,
        on_epoch: Callable[[int], None],
    ) -> Generator[list[TokenBatch], None, None]:
        """The micro-batches of each optimizer step: `accumulation` of them.

        A pure function of seed, step, micro-batch and rank (see `sampler`): `first_step` costs
        nothing to reach, and ranks and micro-batches can be traded for each other without
        changing the set of windows in a step. Reading goes on ahead in a thread; `close()` the
        iterator to end it early.

        Args:
            cycle: go on with the next epoch, in another order, without end. False ends before the
                first step that would need a window of a second epoch.
            on_epoch: called with an epoch, from 0, just before the step with its first window is
                handed over.

        Raises:
            DataError: there are fewer tokens than one window.
            ConfigurationError: an impossible size or rank.
        """
        shape = StepShape(
            seq_length=seq_length,
            micro_batch_size=micro_batch_size,
            accumulation=accumulation,
            rank=rank,
            world_size=world_size,
        )
        order = WindowOrder(self.windows(seq_length), seed)

        def make_step(step: int) -> list[TokenBatch]:
            return [
                self._read(order.windows(shape.numbers(step, micro)), seq_length)
                for micro in range(accumulation)
            ]

        def announce(step: int) -> None:
            for epoch in order.epochs_begun(step, shape.sequences):
                on_epoch(epoch)

        last_step = None if cycle else order.count // shape.sequences
        return deliver(make_step, first_step, last_step, announce)

    def heldout(
        self, *, seq_length: int, batch_size: int, limit_tokens: int | None = None
    ) -> Sequence[TokenBatch]:
        """The held-out stream; see `heldout.HeldoutBatches`.

        Raises:
            DataError: there is no held-out target.
        """
        if len(self._heldout) < 2:
            raise DataError(
                f"{self.path / MANIFEST_NAME}: the held-out set has {len(self._heldout)} tokens "
                "and no target; prepare the dataset with a larger --heldout-fraction"
            )
        return HeldoutBatches(self._heldout, seq_length, batch_size, limit_tokens)

    def windows(self, seq_length: int) -> int:
        """Training windows of an epoch.

        Raises:
            DataError: there are fewer tokens than one window.
        """
        count = (len(self._train) - 1) // seq_length
        if count < 1:
            raise DataError(
                f"{self.path / MANIFEST_NAME}: {len(self._train)} training tokens, one window "
                f"takes {seq_length + 1}; add text or shorten --seq-length"
            )
        return count

    def steps_per_epoch(
        self, *, seq_length: int, micro_batch_size: int, accumulation: int, world_size: int = 1
    ) -> int:
        """Whole optimizer steps that one pass over the windows gives, at least 1.

        Raises:
            DataError: there are fewer tokens than one window.
        """
        shape = StepShape(
            seq_length=seq_length,
            micro_batch_size=micro_batch_size,
            accumulation=accumulation,
            world_size=world_size,
        )
        return max(1, self.windows(seq_length) // shape.sequences)

    def _read(self, windows: np.typing.NDArray[np.int64], seq_length: int) -> TokenBatch:
        tokens = np.empty((len(windows), seq_length + 1), dtype=np.int64)
        for row, window in zip(tokens, windows, strict=True):
            self._train.read(int(window) * seq_length, row)
        return TokenBatch(torch.from_numpy(tokens))
