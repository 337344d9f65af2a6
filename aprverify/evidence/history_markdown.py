"""Differences and histories for a reader: Markdown, byte-stable, widths that fit a page."""

from __future__ import annotations

from collections.abc import Sequence

from aprverify.evidence.history import Point, Series
from aprverify.evidence.history_diff import (
    FACTOR,
    NEGLIGIBLE,
    Change,
    Difference,
    Moved,
)
from aprverify.evidence.markdown import clip, code, count, details, escape, number, table
from aprverify.evidence.records import Run

_LONG = 20
_CELL = 60


def render_difference(before: Run, after: Run, found: Difference) -> str:
    """The difference of two runs. Its first line says whether anything became worse."""
    parts = [
        [f"**{_sentence(found)}**"],
        [
            f"From {code(before.header.run_id)} ({before.header.started[:10]}) to "
            f"{code(after.header.run_id)} ({after.header.started[:10]})."
        ],
        _changes("New failures", found.new),
        _changes("Gone: shown or failing before, not run now or without a row", found.gone),
        _changes("Still failing", found.still_failing),
        _changes("Fixed", found.fixed),
        _changes("Other entries with another outcome", found.other),
        _moved("Nearer to the bound", found.closer),
        _moved("Farther from the bound", found.farther),
        _bounds(found),
        _surroundings(found),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


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
    share = "–" if point.used is None else _share(point.used)
    return [code(point.run_id), point.outcome, *values, share, escape(clip(point.machine, 40))]


def _sentence(found: Difference) -> str:
    worse = [
        count(len(found.new), "new failure") if found.new else "",
        count(len(found.gone), "entry", "entries") + " no longer shown" if found.gone else "",
    ]
    told = ", ".join(text for text in worse if text)
    rest = f"{len(found.still_failing)} still failing, {len(found.fixed)} fixed"
    return f"Worse: {told}; {rest}." if told else f"Nothing became worse: {rest}."


def _changes(title: str, changes: Sequence[Change]) -> list[str]:
    rows = (
        [
            code(change.key),
            f"{change.before or 'no row'} → {change.after or 'no row'}",
            escape(clip(change.why, _CELL)) or "–",
        ]
        for change in changes
    )
    return _section(title, len(changes), table(("entry", "outcome", "why"), rows))


def _moved(title: str, values: Sequence[Moved]) -> list[str]:
    rows = (
        [
            code(value.key),
            code(value.text),
            f"{_share(value.used_before)} → {_share(value.used_after)}",
        ]
        for value in values
    )
    head = ("entry", "comparison", "share of the bound used")
    lines = [
        f"By more than a factor of {FACTOR:g}, where at least {NEGLIGIBLE:.0%} of the bound is "
        "used; 100% is at the bound.",
        "",
        *table(head, rows, "llr"),
    ]
    return _section(title, len(values), lines)


def _bounds(found: Difference) -> list[str]:
    rows = (
        [code(b.key), code(b.text), escape(f"{number(b.before)} → {number(b.after)}")]
        for b in found.bounds
    )
    title = "Compared with another bound"
    return _section(title, len(found.bounds), table(("entry", "comparison", "bound"), rows))


def _surroundings(found: Difference) -> list[str]:
    rows = (
        [escape(d.what), escape(clip(d.before, 50)), escape(clip(d.after, 50)), str(d.entries)]
        for d in found.surroundings
    )
    head = ("what", "before", "after", "entries")
    title = "Made otherwise"
    return _section(title, len(found.surroundings), table(head, rows, "lllr"))


def _section(title: str, size: int, lines: Sequence[str]) -> list[str]:
    if not size:
        return []
    shown = [*lines] if size <= _LONG else details(f"all {size}", lines)
    return [f"## {title}: {size}", "", *shown]


def _share(used: float) -> str:
    return f"{used:.3g}" if used > 10 else f"{used:.1%}"
