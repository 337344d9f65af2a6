"""Histories for a reader: Markdown, byte-stable, widths that fit a page."""

from __future__ import annotations

from collections.abc import Sequence

from aprverify.evidence.changes_markdown import share
from aprverify.evidence.history import Point, Series
from aprverify.evidence.markdown import clip, code, escape, number, table


def render_history(identity: str, series: Sequence[Series]) -> str:
    """A table for each entry's comparisons, oldest run first."""
    lines = [f"# {escape(identity)}"]
    for one in series:
        unit = f" ({escape(one.unit)})" if one.unit not in ("", "1") else ""
        head = ("run", "outcome", "observed", "bound", "margin", "bound used", "machine")
        lines += [
            "",
            f"## {code(one.key)}",
            "",
            f"{escape(one.claim)}: {code(one.text)}{unit}",
            "",
            *table(head, (_point(point) for point in one.points), "llrrrrl"),
        ]
    return "\n".join(lines) + "\n"


def _point(point: Point) -> list[str]:
    values = [
        "–" if value is None else escape(clip(number(value), 40))
        for value in (point.observed, point.bound, point.margin)
    ]
    used = "–" if point.used is None else share(point.used)
    return [code(point.run_id), point.outcome, *values, used, escape(clip(point.machine, 40))]
