"""What changed between two runs, for a reader: Markdown, byte-stable, widths that fit a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aprverify.evidence.changes import FACTOR, NEGLIGIBLE, Change, Changes, Moved
from aprverify.evidence.markdown import (
    clip,
    code,
    count,
    details,
    escape,
    number,
    table,
    wrapped_code,
)
from aprverify.evidence.records import Run

_LONG = 20
_CELL = 26
_KEY = 60


def render_changes(before: Run, after: Run, found: Changes) -> str:
    """What changed, by itself. Its first line says whether anything became worse."""
    names = (
        f"From {code(before.header.run_id)} ({before.header.started[:10]}) to "
        f"{code(after.header.run_id)} ({after.header.started[:10]})."
    )
    return "\n".join([f"**{sentence(found)}**", "", names, *changes_lines(found, "##")]) + "\n"


def sentence(found: Changes) -> str:
    """Whether anything became worse, and how much of what changed."""
    worse = [
        count(len(found.new), "new failure") if found.new else "",
        count(len(found.gone), "entry", "entries") + " no longer shown" if found.gone else "",
    ]
    told = ", ".join(text for text in worse if text)
    rest = ", ".join(_rest(found))
    return f"Worse: {told}; {rest}." if told else f"Nothing became worse: {rest}."


def _rest(found: Changes) -> Iterator[str]:
    yield f"{len(found.still_failing)} still failing"
    yield f"{len(found.fixed)} fixed"
    if found.gates:
        worse = sum(change.worse for change in found.gates)
        yield f"{count(len(found.gates), 'gate')} changed status ({worse} for the worse)"
    if found.other:
        yield f"{count(len(found.other), 'other outcome')}"
    if found.closer:
        yield f"{count(len(found.closer), 'value')} nearer to the bound"
    if found.bounds:
        yield f"{count(len(found.bounds), 'bound')} changed"


def changes_lines(found: Changes, heading: str) -> list[str]:
    """Everything that changed, a heading (``##`` or deeper) and a table for each kind."""
    parts = [
        _gates(found),
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
    return [
        line for title, *lines in filter(None, parts) for line in ("", f"{heading} {title}", *lines)
    ]


def share(used: float) -> str:
    """A share of a bound that is used."""
    return f"{used:.3g}" if used > 10 else f"{used:.1%}"


def _gates(found: Changes) -> list[str]:
    rows = (
        [escape(change.gate), change.before or "absent", change.after or "absent"]
        for change in found.gates
    )
    title = "Gates with another status"
    return _section(title, len(found.gates), table(("gate", "before", "now"), rows))


def _changes(title: str, changes: Sequence[Change]) -> list[str]:
    rows = (
        [
            wrapped_code(change.key, _KEY),
            f"{change.before or 'no row'} → {change.after or 'no row'}",
            escape(clip(change.why, _CELL)) or "–",
        ]
        for change in changes
    )
    return _section(title, len(changes), table(("entry", "outcome", "why"), rows))


def _moved(title: str, values: Sequence[Moved]) -> list[str]:
    rows = (
        [
            wrapped_code(value.key, _KEY),
            code(value.text),
            f"{share(value.used_before)} → {share(value.used_after)}",
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


def _bounds(found: Changes) -> list[str]:
    rows = (
        [code(b.key), code(b.text), escape(f"{number(b.before)} → {number(b.after)}")]
        for b in found.bounds
    )
    title = "Compared with another bound"
    return _section(title, len(found.bounds), table(("entry", "comparison", "bound"), rows))


def _surroundings(found: Changes) -> list[str]:
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
    return [f"{title}: {size}", "", *shown]
