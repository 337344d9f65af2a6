"""A plot of a few lines over one axis, small enough to stand among many.

Lines are told apart by what is written at their end, never by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aprverify.evidence.markdown import number
from aprverify.evidence.series import Point
from aprverify.views.pictures.svg import CHARACTER, clipped, dot, label, line, polyline

WIDTH = 720
HEIGHT = 224
_LEFT, _RIGHT = 64, 560
_TOP, _BOTTOM = 44, 182
_TITLE = int((WIDTH - 16) / CHARACTER)
_ENDS = int((WIDTH - _RIGHT - 18) / CHARACTER)
_DOTS_UP_TO = 32
_TICKS = 6
_LOWEST, _HIGHEST = 1e-3, 10.0
"""Shares on a logarithmic axis. What is beyond stands at its end."""


@dataclass(frozen=True)
class Line:
    """Points in order; a y of None is a gap. `says` shows under the pointer, `end` at its end."""

    points: Sequence[Point]
    kind: str
    says: str
    end: str = ""


@dataclass(frozen=True)
class Plot:
    """Lines with their axes. `shares`: y is a share of a bound, on a logarithmic axis."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    shares: bool = False


@dataclass(frozen=True)
class _Axis:
    """Values between two ends, and the px at which those are.

    `whole`: nothing lies between two whole numbers. It may be logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    whole: bool = False
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """The px of a value; one that is beyond an end stands there."""
        low, high, at = (self._scaled(v) for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Round values within it."""
        if self.logarithmic:
            powers = range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)
            return [10.0**power for power in powers]
        least = (self.high / _TICKS) - (self.low / _TICKS)
        if least <= 0:
            return [self.low]
        if self.whole:
            least = max(least, 1.0)
        power = 10.0 ** math.floor(math.log10(least))
        step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= least)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [step * i for i in range(first, last + 1)]

    def _scaled(self, value: float) -> float:
        # Halved, since the distance between the largest numbers has no float.
        return math.log10(max(value, self.low)) if self.logarithmic else value / 2


def drawn(plot: Plot, top: float) -> list[str]:
    """The plot as elements of a picture, from `top` to `top` + `HEIGHT` px."""
    x, y = _axes(plot, top)
    parts = [label(8, top + 14, clipped(plot.title, _TITLE)), *_frame(plot, x, y, top)]
    for one in plot.lines:
        parts += _line(one, x, y)
    return parts + list(_ends(plot.lines, y))


def _axes(plot: Plot, top: float) -> tuple[_Axis, _Axis]:
    places = [place for one in plot.lines for place, _ in one.points]
    values = [value for one in plot.lines for _, value in one.points if value is not None]
    whole = all(isinstance(place, int) for place in places)
    x = _Axis(min(places, default=0.0), max(places, default=1.0), _LEFT, _RIGHT, whole)
    bottom, high = top + _BOTTOM, top + _TOP
    if plot.shares:
        return x, _Axis(_LOWEST, _HIGHEST, bottom, high, logarithmic=True)
    return x, _Axis(min(values, default=0.0), max(values, default=1.0), bottom, high)


def _frame(plot: Plot, x: _Axis, y: _Axis, top: float) -> Iterator[str]:
    yield label(8, top + 28, plot.y_label, kind="faint")
    yield label((_LEFT + _RIGHT) / 2, y.start + 30, plot.x_label, anchor="middle", kind="faint")
    yield line(_LEFT, y.start, _RIGHT, y.start)
    for tick in y.ticks():
        yield line(_LEFT, y.place(tick), _RIGHT, y.place(tick))
        beyond = {_LOWEST: "≤ ", _HIGHEST: "≥ "}.get(tick, "") if plot.shares else ""
        said = f"{beyond}{number(tick)}"
        yield label(_LEFT - 8, y.place(tick) + 4, said, anchor="end", kind="faint")
    if plot.shares:
        yield line(_LEFT, y.place(1.0), _RIGHT, y.place(1.0), "ink")
        yield label(_RIGHT + 10, y.place(1.0) + 4, "the bound")
    for tick in x.ticks():
        yield line(x.place(tick), y.start, x.place(tick), y.start + 4)
        yield label(x.place(tick), y.start + 16, number(tick), anchor="middle", kind="faint")


def _line(one: Line, x: _Axis, y: _Axis) -> Iterator[str]:
    for piece in _pieces(one.points):
        places = [(x.place(at), y.place(value)) for at, value in piece]
        if len(places) > 1:
            yield polyline(places, one.kind, one.says)
    for at, value in one.points:
        if value is None:
            yield dot(x.place(at), y.end, "bad", f"{one.says}: {number(at)}, not finite")
        elif len(one.points) <= _DOTS_UP_TO:
            said = f"{one.says}: {number(at)}, {number(value)}"
            yield dot(x.place(at), y.place(value), one.kind, said, 2.5)


def _pieces(points: Sequence[Point]) -> Iterator[list[tuple[float, float]]]:
    """The stretches between gaps."""
    piece: list[tuple[float, float]] = []
    for at, value in points:
        if value is None:
            yield piece
            piece = []
        else:
            piece.append((at, value))
    yield piece


def _ends(lines: Sequence[Line], y: _Axis) -> Iterator[str]:
    """What each line is, beside its last value; lower ones make way."""
    last = {one.end: [v for _, v in one.points if v is not None] for one in lines if one.end}
    placed = sorted((y.place(values[-1]) if values else y.end, end) for end, values in last.items())
    lowest = y.end - 12
    for i, (at, end) in enumerate(placed):
        room = y.start - 12 * (len(placed) - 1 - i)
        lowest = max(lowest + 12, min(at, room))
        yield label(_RIGHT + 10, lowest + 4, clipped(end, _ENDS))
