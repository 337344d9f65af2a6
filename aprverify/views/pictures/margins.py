"""How much of its tolerance each claim used, a dot a case, on a logarithmic scale."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from aprverify.evidence.closest import Near, nearest
from aprverify.evidence.order import in_plan_order
from aprverify.evidence.records import Run
from aprverify.views.pictures.svg import CHARACTER, clipped, document, dot, label, line

_MOST = 40
_LABEL = 62
_LEFT = _LABEL * CHARACTER + 16
_PLOT = 380
_ROW = 16
_TOP = 46
_LOWEST, _HIGHEST = -7, 1
"""Powers of ten on the axis. What used less of its tolerance stands at its left end."""


def render_margins(run: Run) -> str:
    """The claims that came closest to failing first; at most forty of them."""
    claims = _by_claim(nearest(in_plan_order(run).rows))
    shown = claims[:_MOST]
    bottom = _TOP + _ROW * len(shown)
    parts = [*_axis(bottom), *(p for i, c in enumerate(shown) for p in _claim(_TOP + _ROW * i, c))]
    if rest := len(claims) - len(shown):
        parts.append(label(8, bottom + 28, f"and {rest} more, further from failing", kind="faint"))
    about = (
        "A row a claim, a dot a case. At 1 a value stands at its bound; left of it it holds, right "
        "of it the claim is falsified. Claims without a tolerance are not shown."
    )
    title = "Share of its tolerance that each claim used"
    return document(_LEFT + _PLOT + 24, bottom + 40, title, about, parts)


def _by_claim(found: Sequence[Near]) -> list[tuple[str, list[Near]]]:
    claims: dict[str, list[Near]] = defaultdict(list)
    for near in found:
        # The far side of a band says nothing: its near side stands for both.
        if near.margin is not None and near.margin <= 1:
            claims[f"{near.row.test} {near.comparison.claim}"].append(near)
    return list(claims.items())


def _axis(bottom: float) -> list[str]:
    parts = [label(8, 18, "share of the tolerance used (1 = at the bound)", kind="faint")]
    for power in range(_LOWEST, _HIGHEST + 1):
        x = _x(10.0**power)
        parts.append(line(x, _TOP - 8, x, bottom, "ink" if power == 0 else "line"))
        text = "1" if power == 0 else ("10" if power == 1 else f"1e{power}")
        parts.append(label(x, _TOP - 14, text, anchor="middle", kind="faint"))
    return parts


def _claim(y: float, claim: tuple[str, list[Near]]) -> list[str]:
    name, found = claim
    parts = [label(_LEFT - 10, y + 8, clipped(name, _LABEL), anchor="end")]
    for near in found:
        assert near.margin is not None
        used = 1 - near.margin
        kind = "mark" if near.comparison.holds else "bad"
        parts.append(dot(_x(used), y + 5, kind, f"{near.row.key}: {used:.3g}"))
    return parts


def _x(used: float) -> float:
    """The place on the axis of a share of the tolerance."""
    power = math.log10(used) if used > 0 else _LOWEST
    within = min(max(power, _LOWEST), _HIGHEST)
    return _LEFT + _PLOT * (within - _LOWEST) / (_HIGHEST - _LOWEST)
