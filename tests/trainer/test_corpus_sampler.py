"""Which window comes when: the order of an epoch, and how a step is dealt out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.corpus.permutation import permute
from trainer.corpus.sampler import StepShape, WindowOrder
from trainer.errors import ConfigurationError

QUICK = settings(derandomize=True, max_examples=50, deadline=None)


@QUICK
@given(count=st.integers(1, 400), seed=st.integers(0, 2**70), epoch=st.integers(0, 2**40))
def test_order_of_an_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    """Every index below `count` is hit exactly once, for any seed and epoch."""
    order = permute(np.arange(count), count, seed, epoch)
    assert sorted(order.tolist()) == list(range(count))


def test_order_is_a_function_of_seed_and_epoch() -> None:
    """It repeats for the same pair and differs when either changes."""
    pairs = [(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    orders = {tuple(permute(np.arange(50), 50, *pair).tolist()) for pair in pairs * 2}
    assert len(orders) == 4


def test_order_of_a_huge_epoch_takes_no_memory() -> None:
    """Single places of 2**44 windows: an array of them would be 128 TiB."""
    count = 2**44 - 3
    places = np.array([0, 1, count - 1])
    windows = permute(places, count, seed=0, epoch=0)
    assert len(set(windows.tolist())) == 3
    assert ((windows >= 0) & (windows < count)).all()


def test_order_depends_on_the_index_alone() -> None:
    """An index is sent to the same place whichever others are asked for with it."""
    whole = permute(np.arange(100), 100, seed=3, epoch=2)
    parts = np.concatenate([permute(np.arange(i, i + 1), 100, seed=3, epoch=2) for i in range(100)])
    assert (whole == parts).all()


@pytest.mark.parametrize("count", [7, 16, 20])
def test_every_window_is_equally_likely_at_every_place(count: int) -> None:
    """Pearson's chi-square over 4000 epochs stays within 5 standard deviations of its mean.

    Rows and columns of the table of counts both sum to the number of epochs, so it has
    (count - 1)**2 degrees of freedom, as many as its mean and half its variance.
    """
    epochs = 4000
    table = np.zeros((count, count))
    for epoch in range(epochs):
        table[np.arange(count), permute(np.arange(count), count, 0, epoch)] += 1
    expected = epochs / count
    statistic = ((table - expected) ** 2 / expected).sum() * (count - 1) / count
    freedom = (count - 1) ** 2
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_neighbours_do_not_stay_neighbours() -> None:
    """Of 9,999 pairs of consecutive places about 2 hold consecutive windows; 20 would be 1e-12."""
    order = permute(np.arange(10_000), 10_000, seed=0, epoch=0)
    assert (np.abs(np.diff(order)) == 1).sum() < 20


@QUICK
@given(
    micro_batch_size=st.integers(1, 4),
    accumulation=st.integers(1, 4),
    world_size=st.integers(1, 4),
    step=st.integers(0, 10**9),
)
def test_a_step_holds_the_same_sequences_however_it_is_dealt_out(
    micro_batch_size: int, accumulation: int, world_size: int, step: int
) -> None:
    """Ranks and micro-batches together get each number of the step's range exactly once."""
    numbers: list[int] = []
    for rank in range(world_size):
        shape = StepShape(
            seq_length=1,
            micro_batch_size=micro_batch_size,
            accumulation=accumulation,
            rank=rank,
            world_size=world_size,
        )
        for micro in range(accumulation):
            numbers += shape.numbers(step, micro).tolist()
    total = micro_batch_size * accumulation * world_size
    assert sorted(numbers) == list(range(step * total, (step + 1) * total))


def test_position_of_an_incident_is_replayed() -> None:
    """FALSIFY-DATARESUME-003: step 25,000 with 8 micro-batches starts at sequence 200,000."""
    shape = StepShape(seq_length=1, micro_batch_size=1, accumulation=8)
    assert shape.numbers(25_000, 0).tolist() == [200_000]


@QUICK
@given(count=st.integers(1, 40), sequences=st.integers(1, 50))
def test_epochs_are_announced_once_each_and_in_order(count: int, sequences: int) -> None:
    """Over consecutive steps, with steps shorter and longer than an epoch."""
    order = WindowOrder(count, seed=0)
    announced = [e for step in range(20) for e in order.epochs_begun(step, sequences)]
    assert announced == list(range(-(-20 * sequences // count)))


@QUICK
@given(count=st.integers(1, 40), epochs=st.integers(1, 4))
def test_windows_run_on_into_the_next_epoch(count: int, epochs: int) -> None:
    """Consecutive numbers hold every window once in each run of `count`."""
    windows = WindowOrder(count, seed=1).windows(np.arange(count * epochs))
    for epoch in windows.reshape(epochs, count):
        assert sorted(epoch.tolist()) == list(range(count))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"micro_batch_size": 0}, "micro_batch_size is 0"),
        ({"accumulation": 0}, "accumulation is 0"),
        ({"seq_length": 0}, "seq_length is 0"),
        ({"rank": 2, "world_size": 2}, "rank 2 is outside 0 … 1"),
        ({"rank": -1}, "rank -1"),
    ],
)
def test_impossible_shape_is_refused(change: dict[str, int], said: str) -> None:
    """One error that names the field and its value."""
    fields = {"seq_length": 1, "micro_batch_size": 1, "accumulation": 1} | change
    with pytest.raises(ConfigurationError, match=said):
        StepShape(**fields)
