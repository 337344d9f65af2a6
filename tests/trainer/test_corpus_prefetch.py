"""The thread that reads ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from trainer.batch import TokenBatch
from trainer.corpus.prefetch import Prefetch
from trainer.corpus.steps import deliver


def wait_for(condition: Callable[[], bool]) -> None:
    """Until `condition` holds; ten seconds mean that it never will."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited for ten seconds"
        time.sleep(0.005)


def prefetch_threads() -> list[threading.Thread]:
    """Those that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def step_of(step: int) -> list[TokenBatch]:
    """One micro-batch that shows its step."""
    return [TokenBatch(torch.full((1, 3), step))]


def test_items_come_in_order_and_end() -> None:
    """All of them, once."""
    with Prefetch(range(100)) as ready:
        assert list(ready) == list(range(100))


def test_no_more_than_depth_items_wait() -> None:
    """With two in the queue and one in the thread's hand, the source is left alone."""
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with Prefetch(source(), depth=2) as ready:
        wait_for(lambda: len(made) == 3)
        time.sleep(0.05)
        assert made == [0, 1, 2]
        assert next(iter(ready)) == 0


def test_an_error_arrives_in_its_place() -> None:
    """Items before it are delivered, then the very exception is raised."""
    error = OSError("disk gone")

    def source() -> Iterator[int]:
        yield 1
        raise error

    got: list[int] = []
    with pytest.raises(OSError, match="disk gone") as caught, Prefetch(source()) as ready:
        got.extend(ready)
    assert caught.value is error
    assert got == [1]


def test_leaving_early_ends_the_thread() -> None:
    """Also while it waits for room in a full queue."""
    endless = iter(int, 1)
    with Prefetch(endless) as ready:
        assert next(iter(ready)) == 0
        assert prefetch_threads()
    assert not prefetch_threads()


def test_closing_a_stream_of_steps_ends_the_thread() -> None:
    """`close()` on the iterator is enough."""
    steps = deliver(step_of, 0, None, lambda step: None)
    next(steps)
    assert prefetch_threads()
    steps.close()
    assert not prefetch_threads()


def test_a_step_is_announced_by_its_consumer_just_before_it_is_handed_over() -> None:
    """Not by the thread that reads ahead, which is several steps further on."""
    events: list[tuple[str, int, int]] = []
    me = threading.get_ident()
    for batches in deliver(
        step_of, 3, 6, lambda step: events.append(("before", step, threading.get_ident()))
    ):
        events.append(("got", int(batches[0].tokens[0, 0]), me))
    assert events == [(kind, step, me) for step in (3, 4, 5) for kind in ("before", "got")]
