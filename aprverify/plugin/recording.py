"""From what a falsifier says of a series to what its row holds of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from aprverify.evidence.series import Point, Series, thinned
from aprverify.outcomes import Broken


def series_of(
    name: str, points: Iterable[tuple[Any, Any]], labels: tuple[str, ...], claim: str | None
) -> Series | None:
    """The series, thinned; None without points. `labels`: x and its unit, y and its unit.

    Raises:
        Broken: a point is no pair of numbers, or its x is not finite.
    """
    found = [_point(name, x, y) for x, y in points]
    if not found:
        return None
    xs, ys = zip(*thinned(found), strict=True)
    x_label, x_unit, y_label, y_unit = labels
    return Series(name, x_label, x_unit, y_label, y_unit, claim, len(found), xs, ys)


def _point(name: str, x: Any, y: Any) -> Point:
    place = _number(name, x)
    if place is None:
        raise Broken(f"series {name}: x is {x!r:.80}, no finite number")
    return place, _number(name, y)


def _number(name: str, value: Any) -> float | None:
    """A builtin number; None for what is absent or not finite."""
    taken = value.item() if hasattr(value, "item") else value
    if taken is None:
        return None
    if isinstance(taken, bool) or not isinstance(taken, (int, float)):
        raise Broken(f"series {name}: {value!r:.80} is no number")
    try:
        finite = math.isfinite(taken)
    except OverflowError:
        return None
    return taken if finite else None
