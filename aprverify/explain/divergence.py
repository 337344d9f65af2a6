"""Where a failed entry went wrong first, or worst, as far as its own row says."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aprverify.evidence.markdown import number
from aprverify.evidence.records import Comparison, Row
from aprverify.evidence.series import Series

_WORD = re.compile(r"[A-Za-z_]\w*")


def divergence(row: Row, clean: Row | None) -> Iterator[str]:
    """One sentence each: series that leave their bound, then texts that name a place."""
    failed = [c for c in row.comparisons if not c.holds]
    for series in row.series:
        judged = next((c for c in failed if c.claim == series.claim), None)
        if judged is not None:
            yield _first_beyond(series, judged)
    compared = {word for c in failed for word in _WORD.findall(c.text)}
    for name, value in row.measures.items():
        if not isinstance(value, str) or not value.strip():
            continue
        if (quantity := _is_worst(name)) is not None:
            if any(_is_of(quantity, word) for word in compared if word != name):
                yield f"{name}: {value} (the largest error, which need not be the first)"
        elif name not in compared and clean is not None and clean.measures.get(name) == "":
            yield f"{name}: {value} (empty when nothing is wrong)"


def _first_beyond(series: Series, judged: Comparison) -> str:
    name, bound = f"{series.name} ({series.y_axis})", number(judged.bound)
    beyond = [(x, y) for x, y in series.points if y is None or y > judged.bound]
    if not beyond:
        return f"{name}: no point lies beyond {bound}"
    x, y = beyond[0]
    value = "not finite" if y is None else f"{number(y)} against {bound}"
    before = [point for point in series.points if point[0] < x]
    last = f", within its bound until {number(before[-1][0])}" if before else ""
    thinned = "" if series.measured == len(series.x) else " of those that were kept"
    return (
        f"{name}: first beyond its bound at {number(x)} ({value}{last}); {len(beyond)} of "
        f"{len(series.x)} points{thinned} are beyond it; the axis is {series.x_axis}"
    )


def _is_worst(name: str) -> str | None:
    """Of what a text names the worst: `forward` of `forward_worst`, or of `worst_forward`."""
    words = name.split("_")
    if "worst" not in words:
        return None
    return "_".join(word for word in words if word != "worst")


def _is_of(quantity: str, measure: str) -> bool:
    return measure == quantity or measure.startswith(f"{quantity}_")
