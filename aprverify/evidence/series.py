"""A series beside the verdict: how something went, by step or by depth, for pictures to draw.

A claim judges one number; a series shows where it came from. It decides nothing. One that names a
claim must still agree with it: its largest value is what the claim observed, so that no picture
shows an error other than the one that was judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

MOST_POINTS = 256
MOST_SERIES = 8
"""Of one row. With `MOST_POINTS` it bounds what a falsifier can add to a run."""
_KEPT_OF_A_BUCKET = 3

Point = tuple[float, float | None]


class Compared(Protocol):
    """What a claim compared: ``observed op bound``."""

    @property
    def op(self) -> str:
        """The comparison's operator."""

    @property
    def observed(self) -> Any:
        """The measured side."""

    @property
    def bound(self) -> Any:
        """The other side."""


@dataclass(frozen=True)
class Series:
    """Values over an axis.

    Attributes:
        name: unlike that of any other series of the row.
        x_label, x_unit, y_label, y_unit: what the axes are; units may be empty.
        claim: the id of the claim that judges the largest value; None where none does.
        measured: how many points there were before thinning.
        x: strictly increasing.
        y: as many; None where the value was not finite.
    """

    name: str
    x_label: str
    x_unit: str
    y_label: str
    y_unit: str
    claim: str | None
    measured: int
    x: tuple[float, ...]
    y: tuple[float | None, ...]

    @property
    def x_axis(self) -> str:
        """What x is, with its unit."""
        return _with_unit(self.x_label, self.x_unit)

    @property
    def y_axis(self) -> str:
        """What y is, with its unit."""
        return _with_unit(self.y_label, self.y_unit)

    @property
    def points(self) -> list[Point]:
        """The pairs, in order."""
        return list(zip(self.x, self.y, strict=True))


def _with_unit(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most `MOST_POINTS` of them, in order; all of them where there are no more.

    The first and the last stay. What lies between is cut into 84 buckets, as even as they can be,
    and each keeps its first lowest, its first highest and its first absent value: peaks, dips and
    gaps are never lost.
    """
    if len(points) <= MOST_POINTS:
        return list(points)
    inner = range(1, len(points) - 1)
    buckets = (MOST_POINTS - 2) // _KEPT_OF_A_BUCKET
    edges = [len(inner) * i // buckets for i in range(buckets + 1)]
    kept = {0, len(points) - 1}
    for start, end in pairwise(edges):
        kept |= set(_telling(points, inner[start:end]))
    return [points[index] for index in sorted(kept)]


def _telling(points: Sequence[Point], bucket: Iterable[int]) -> Iterator[int]:
    values = {index: points[index][1] for index in bucket}
    finite = {index: value for index, value in values.items() if value is not None}
    yield from [index for index in values if index not in finite][:1]
    if finite:
        yield min(finite, key=finite.__getitem__)
        yield max(finite, key=finite.__getitem__)


def malformed(found: Sequence[Series]) -> Iterator[str]:
    """What no writer would have recorded of one row, one sentence each."""
    if len(found) > MOST_SERIES:
        yield f"{len(found)} series, at most {MOST_SERIES} are recorded"
    names = [series.name for series in found]
    yield from (f"two series {name!r}" for name in {n: 0 for n in names if names.count(n) > 1})
    for series in found:
        yield from (f"series {series.name!r}: {fault}" for fault in _malformed(series))


def _malformed(series: Series) -> Iterator[str]:
    points = len(series.x)
    if points != len(series.y):
        yield f"{points} x for {len(series.y)} y"
    if not 1 <= points <= MOST_POINTS:
        yield f"{points} points, from 1 to {MOST_POINTS} are recorded"
    if any(a >= b for a, b in pairwise(series.x)):
        yield "x does not increase from point to point"
    if series.measured < points or (series.measured > points and series.measured <= MOST_POINTS):
        yield f"{points} points of {series.measured} that were measured"


def disagreement(series: Series, compared: Sequence[Compared]) -> str | None:
    """How a series differs from what its claim compared; None where it agrees."""
    said = f"series {series.name!r} is judged by claim {series.claim}"
    if len(compared) != 1:
        return f"{said}, which makes {len(compared)} comparisons instead of one"
    (judged,) = compared
    if judged.op not in ("<", "<=") or not _is_number(judged.bound) or judged.bound <= 0:
        return f"{said}, whose bound is no finite upper one above zero"
    largest = _largest(series)
    observed = judged.observed if _is_number(judged.observed) else None
    if largest != observed:
        return f"{said}, which observed {judged.observed!r}; its largest value is {largest!r}"
    return None


def _largest(series: Series) -> float | None:
    finite = [value for value in series.y if value is not None]
    return max(finite) if len(finite) == len(series.y) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
