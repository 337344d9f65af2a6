"""Which windows a rank trains on at a step: a pure function of the seed and the position.

Sequences are numbered through the whole training, so that ranks and micro-batches only deal out the
same numbers in other ways:

    number = ((step * accumulation + micro) * world_size + rank) * micro_batch_size + j

With W windows, number n is place ``n % W`` of epoch ``n // W``. An epoch that ends within a step is
followed by the next one at once, so every window occurs exactly once an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.corpus.permutation import Indices, permute
from trainer.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class StepShape:
    """How the sequences of an optimizer step are dealt out.

    Attributes:
        seq_length: targets of a sequence.
        micro_batch_size: sequences of one micro-batch on one rank.
        accumulation: micro-batches of a step.
        rank, world_size: of data parallelism.

    Raises:
        ConfigurationError: a size below 1, or a rank outside ``[0, world_size)``.
    """

    seq_length: int
    micro_batch_size: int
    accumulation: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "rank" and value < 1:
                raise ConfigurationError(f"{name} is {value}, at least 1 is needed")
        if not 0 <= self.rank < self.world_size:
            raise ConfigurationError(f"rank {self.rank} is outside 0 … {self.world_size - 1}")

    @property
    def sequences(self) -> int:
        """Sequences of a step over all ranks."""
        return self.micro_batch_size * self.accumulation * self.world_size

    def numbers(self, step: int, micro: int) -> Indices:
        """Sequence numbers of one micro-batch on this rank, ``[micro_batch_size]``."""
        batch = (step * self.accumulation + micro) * self.world_size + self.rank
        return batch * self.micro_batch_size + np.arange(self.micro_batch_size, dtype=np.int64)


@dataclass(frozen=True)
class WindowOrder:
    """The order of `count` windows in every epoch, by `seed`."""

    count: int
    seed: int

    def windows(self, numbers: Indices) -> Indices:
        """The window of each sequence number."""
        epochs, places = np.divmod(numbers, self.count)
        windows = np.empty_like(numbers)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            windows[chosen] = permute(places[chosen], self.count, self.seed, int(epoch))
        return windows

    def epochs_begun(self, step: int, sequences: int) -> range:
        """Epochs whose first window is among the `sequences` of `step`."""
        first = step * sequences
        return range(-(-first // self.count), -(-(first + sequences) // self.count))
