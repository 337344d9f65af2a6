"""Errors of named tensors by their depth in the model: a fault shows where it begins."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
DEPTH = "depth: 0 embedding, then each layer, last the head"
"""What the axis of `by_depth` is."""


def by_depth(errors: Iterable[tuple[str, float]], layers: int) -> list[tuple[int, float]]:
    """The largest error at each depth that has one, NaN above all, in forward order.

    Depth 0 is the embedding, n the n-th layer from 1, `layers` + 1 what follows the last layer.
    """
    largest: dict[int, float] = {}
    for name, error in errors:
        depth = _depth(name, layers)
        largest[depth] = _larger(largest.get(depth, 0.0), error)
    return sorted(largest.items())


def _larger(seen: float, error: float) -> float:
    return math.nan if math.isnan(seen) or math.isnan(error) else max(seen, error)


def _depth(name: str, layers: int) -> int:
    if found := _LAYER.search(name):
        return int(found[1]) + 1
    return 0 if "embed" in name else layers + 1
