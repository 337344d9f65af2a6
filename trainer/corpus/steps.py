"""Optimizer steps' worth of batches, made ahead in a thread, announced as they are handed over."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from itertools import count

from trainer.batch import TokenBatch
from trainer.corpus.pinning import pinned
from trainer.corpus.prefetch import Prefetch


def deliver(
    make_step: Callable[[int], list[TokenBatch]],
    first_step: int,
    last_step: int | None,
    before_step: Callable[[int], None],
) -> Generator[list[TokenBatch], None, None]:
    """``make_step(step)`` from `first_step` up to but without `last_step`; None is without end.

    `before_step` is called in the consumer's thread, just before a step is handed over.
    """
    steps: Iterable[int] = count(first_step) if last_step is None else range(first_step, last_step)
    with Prefetch(map(make_step, steps)) as ready:
        for step, batches in enumerate(ready, first_step):
            before_step(step)
            yield [pinned(batch) for batch in batches]
