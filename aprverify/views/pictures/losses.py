"""Losses of the training runs that falsifiers made: the first and the final one that they measured.

Rows hold no series, so the line between the two is straight on purpose: it is no curve.
"""

from __future__ import annotations

import math

from aprverify.evidence.measured import losses_of
from aprverify.evidence.order import in_plan_order
from aprverify.evidence.records import Run
from aprverify.views.pictures.svg import CHARACTER, clipped, document, dot, label, line

_LEFT, _PLOT, _TOP, _HEIGHT = 60, 220, 40, 220
_LABEL = 96


def render_losses(run: Run) -> str:
    """A line a case, from the first loss to the final one, in nats/token."""
    pairs = [(row.key, pair) for row in in_plan_order(run).rows if (pair := losses_of(row))]
    finite = [(key, pair) for key, pair in pairs if all(map(math.isfinite, pair))]
    highest = math.ceil(max((max(pair) for _, pair in finite), default=1.0)) or 1
    parts = [label(8, 18, "loss, nats/token: first and final step", kind="faint")]
    for tick in range(0, highest + 1, max(1, highest // 6)):
        y = _y(tick, highest)
        parts += [
            line(_LEFT, y, _LEFT + _PLOT, y),
            label(_LEFT - 8, y + 4, str(tick), anchor="end"),
        ]
    for i, (key, (first, final)) in enumerate(finite):
        start, end = (_LEFT, _y(first, highest)), (_LEFT + _PLOT, _y(final, highest))
        parts.append(line(*start, *end, "mark"))
        parts += [dot(*start, "mark", f"{first:.4g}"), dot(*end, "mark", f"{final:.4g}")]
        named = f"{first:.3f} → {final:.3f}  {clipped(key, _LABEL)}"
        parts.append(label(8, _TOP + _HEIGHT + 30 + 14 * i, named))
    width = 16 + CHARACTER * (_LABEL + 20)
    height = _TOP + _HEIGHT + 34 + 14 * len(finite)
    about = "Each line joins two measured values; what lies between them was not recorded."
    return document(width, height, "First and final losses", about, parts)


def _y(loss: float, highest: int) -> float:
    return _TOP + _HEIGHT * (1 - max(loss, 0.0) / highest)
