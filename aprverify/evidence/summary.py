"""A run for a terminal: the gates, what did not run, and the verdict last, where the eye is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from aprverify.evidence.localized import places
from aprverify.evidence.markdown import clip, count, margin, observed_and_bound
from aprverify.evidence.records import Row, Run
from aprverify.evidence.report import gates_with_rows
from aprverify.evidence.sentences import gaps, not_shown, verdict_sentence
from aprverify.evidence.status import GateStatus, Status
from aprverify.evidence.terminal import one_line, printable
from aprverify.evidence.verdict import OK, exit_code

_WIDTH = 120
_COLUMNS = {"gate": 44, "status": 23, "observed": 13, "bound": 16, "margin": 8, "teeth": 6}
_PLACES = 6
_FIGURES = ("observed", "margin", "teeth")
_RED, _YELLOW, _GREEN = "31", "33", "32"


def render_summary(run: Run, colour: bool = False) -> str:
    """The run in at most 120 columns, with ANSI colours on request."""
    with_rows, without = gates_with_rows(run)
    lines = [*_gates(with_rows, colour)]
    if without:
        lines.append(f"  ({count(len(without), 'gate')} without a row in this run)")
    lines += _first_at_fault(run)
    lines += _not_run(run)
    # Indented, so that no reason that a row gives can begin a line like a verdict.
    told = one_line(f"Not shown: {not_shown(run)}")
    lines += ["", *textwrap.wrap(told, _WIDTH, subsequent_indent="  "), ""]
    good = exit_code(run, run.header.require) == OK
    for line in textwrap.wrap(one_line(verdict_sentence(run)), _WIDTH):
        lines.append(_paint(line, _GREEN if good else _RED, colour))
    return "\n".join(lines) + "\n"


def _gates(statuses: Sequence[GateStatus], colour: bool) -> list[str]:
    if not statuses:
        return []
    lines = [" ".join(_cells(list(_COLUMNS))).rstrip()]
    contract = ""
    for status in statuses:
        if status.contract != contract:
            contract = status.contract
            lines.append(clip(one_line(contract), _WIDTH))
        lines.append(_gate(status, colour))
    if any(status.ship_blocking for status in statuses):
        lines.append("  ! blocks shipping")
    return lines


def _gate(status: GateStatus, colour: bool) -> str:
    observed = bound = distance = "–"
    if status.closest is not None:
        observed, bound = observed_and_bound(status.closest.comparison)
        distance = margin(status.closest.comparison)
    name = f"{'!' if status.ship_blocking else ' '} {status.gate}"
    teeth = f"{status.teeth_caught}/{status.teeth_declared}"
    cells = _cells([name, status.status.name, observed, bound, distance, teeth])
    cells[1] = _paint(cells[1], _colour_of(status.status), colour)
    return " ".join(cells).rstrip()


def _cells(texts: Sequence[str]) -> list[str]:
    cells = []
    for (name, width), text in zip(_COLUMNS.items(), texts, strict=True):
        # Not `clip` alone: the gate's mark stands before its name, and may be a blank.
        line = printable(" ".join(text.splitlines()))
        shown = line if len(line) <= width else f"{line[: width - 1]}…"
        cells.append(shown.rjust(width) if name in _FIGURES else shown.ljust(width))
    return cells


def _first_at_fault(run: Run) -> list[str]:
    found = places(run.rows)
    lines = []
    for place in found[:_PLACES]:
        lines += textwrap.wrap(
            one_line(place.said), _WIDTH, initial_indent="  ", subsequent_indent=" " * 6
        )
        lines.append(f"      {_entries(place.rows)}, as {one_line(place.rows[0].key)}")
    if rest := found[_PLACES:]:
        more = [row for place in rest for row in place.rows]
        lines.append(f"  and {len(rest)} more, of {_entries(more)}")
    return ["", "First at fault:", *lines] if lines else []


def _entries(rows: Sequence[Row]) -> str:
    return count(len(rows), "entry", "entries")


def _not_run(run: Run) -> list[str]:
    lines = []
    for gap in gaps(run.rows):
        what = f"{len(gap.rows):>6}  {one_line(gap.reason.detail or gap.reason.kind)}"
        lines += textwrap.wrap(what, _WIDTH, subsequent_indent=" " * 8)
        if gap.reason.remedy:
            # Never broken across lines: it is there to be copied.
            lines.append(f"        → {one_line(gap.reason.remedy)}")
    return ["", "Did not run:", *lines] if lines else []


def _paint(text: str, colour_code: str, colour: bool) -> str:
    return f"\x1b[{colour_code}m{text}\x1b[0m" if colour else text


def _colour_of(status: Status) -> str:
    if status is Status.DISCHARGED:
        return _GREEN
    return _RED if status <= Status.BROKEN else _YELLOW
