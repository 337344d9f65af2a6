"""Error by depth in units of its bound, forward and backward, and what left its bound first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aprverify.localizing.watch import Localized
from aprverify.views.pictures.plot import HEIGHT, WIDTH, Line, Plot, drawn
from aprverify.views.pictures.svg import clipped, document, label

_DEPTH = "depth: 0 embedding, then each layer, last the head"
_KINDS = {"forward": "mark", "backward": "other"}


def render_localized(found: Sequence[Localized]) -> str:
    """A plot for each case that was traced."""
    about = "The largest error of any operator at each depth, on the inputs it was given, in units "
    parts: list[str] = []
    top = 8.0
    for one in (one for one in found if one.by_depth):
        parts += drawn(_plot(one), top)
        top += HEIGHT
        if one.findings:
            parts.append(label(8, top, clipped(f"first: {one.findings[0]['sentence']}", 115)))
            top += 20
    return document(WIDTH, top + 12, "Error ÷ bound by depth", f"{about}of its bound.", parts)


def _plot(one: Localized) -> Plot:
    lines = [
        Line(
            [(depth, error if math.isfinite(error) else None) for depth, error in points],
            _KINDS.get(phase, "open"),
            phase,
            phase,
        )
        for phase, points in one.by_depth.items()
    ]
    return Plot(one.entry.key, _DEPTH, "largest error ÷ its bound", lines, shares=True)
