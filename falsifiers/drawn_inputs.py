"""What a property is tried on, drawn by hypothesis: the same in every process that asks again.

hypothesis' own engine adapts what it draws to what ran before, and to the constants of whatever
modules are loaded; a claim's inputs would then depend on who imported what. Its entry for fuzzers,
`fuzz_one_input`, makes an example of the bytes that it is given and of nothing else. It has no
database, no deadline and no shrinking; a falsifier knows no bound, so that it could not tell which
smaller example still fails. Each one therefore names the example of its largest error.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

_BYTES = 4096
"""More than any example takes: at most eight a number, and as many again for each one refused."""
_PER_DECADE = 64


class TooFewExamples(Exception):
    """A strategy refused nearly all that was drawn."""


def examples(
    strategy: SearchStrategy[T], count: int, seed: int, *, always: Sequence[T] = ()
) -> list[T]:
    """`count` examples: those of `always`, in order, then ones that hypothesis drew.

    Equal arguments give equal examples under one version of hypothesis, whatever else is loaded.

    Raises:
        TooFewExamples: of ten draws an example nearly none was one.
    """
    found: list[T] = []

    @settings(database=None)
    @given(strategy)
    def keep(example: T) -> None:
        found.append(example)

    fuzz = cast(Any, keep).hypothesis.fuzz_one_input  # which its type hints leave out
    chance, wanted = Random(seed), count - len(always)
    for _ in range(10 * wanted):
        if len(found) == wanted:
            break
        fuzz(chance.randbytes(_BYTES))
    if len(found) < wanted:
        what = f"{strategy} gave {len(found)} of {wanted} examples in {10 * wanted} draws"
        raise TooFewExamples(f"{what} (seed {seed}): let it refuse less")
    return [*always, *found]


def integers(low: int, high: int, edges: Sequence[int] = ()) -> SearchStrategy[int]:
    """Integers between `low` and `high`, both included: half are one of them, or of `edges`."""
    inside = [edge for edge in edges if low < edge < high]
    return st.one_of(st.sampled_from([low, *inside, high]), st.integers(low, high))


def widths(least: int) -> SearchStrategy[int]:
    """Widths up to 257, half of them an end or beside what a kernel may take for a block."""
    return integers(least, 257, (2, 3, 31, 32, 33, 127, 128, 129, 255, 256))


def powers_of_ten(low: float, high: float) -> SearchStrategy[float]:
    """Numbers between ``10^low`` and ``10^high``, log-uniform on a grid of 64 a decade."""
    return st.integers(round(_PER_DECADE * low), round(_PER_DECADE * high)).map(
        lambda steps: float(10.0 ** (steps / _PER_DECADE))
    )
