"""Random tokens in place of a dataset, for measuring speed: there is nothing in them to learn."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import torch

from trainer.batch import TokenBatch
from trainer.corpus.sampler import StepShape
from trainer.corpus.steps import deliver


def synthetic_steps(
    vocab_size: int,
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
    """As `Corpus.training_steps`, uniform over the vocabulary. Its one epoch never ends.

    Sequence number n is drawn from Philox with `seed` as key and n in the counter, so it does not
    depend on how sequences are dealt out. `cycle` decides nothing.

    Raises:
        ConfigurationError: an impossible size or rank.
    """
    shape = StepShape(
        seq_length=seq_length,
        micro_batch_size=micro_batch_size,
        accumulation=accumulation,
        rank=rank,
        world_size=world_size,
    )

    def sequence(number: int) -> np.typing.NDArray[np.int64]:
        # The low word counts up while drawing; the sequence's number stands above it.
        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, number, 0, 0]))
        return generator.integers(vocab_size, size=seq_length + 1, dtype=np.int64)

    def make_step(step: int) -> list[TokenBatch]:
        return [
            TokenBatch(torch.from_numpy(np.stack([sequence(int(n)) for n in numbers])))
            for numbers in (shape.numbers(step, micro) for micro in range(accumulation))
        ]

    def announce(step: int) -> None:
        if step == 0:
            on_epoch(0)

    return deliver(make_step, first_step, None, announce)
