"""A run for a reviewer: report.md. Its first screen answers what a reviewer with two minutes asks.

A pure function of run.jsonl, byte for byte: a report that differs was edited by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aprverify.evidence.answers import answers, tolerances
from aprverify.evidence.changes import changes_between
from aprverify.evidence.changes_markdown import changes_lines
from aprverify.evidence.closest import Near, deciding, nearest, nearest_first, tolerance_margin
from aprverify.evidence.localized import Place, first_fault, places
from aprverify.evidence.markdown import (
    clip,
    code,
    count,
    details,
    escape,
    number,
    observed_and_bound,
    table,
    wrapped_code,
)
from aprverify.evidence.matrix_markdown import matrix_lines
from aprverify.evidence.order import in_plan_order
from aprverify.evidence.provenance import provenance_lines
from aprverify.evidence.provenance import where as where
from aprverify.evidence.recorded import claims_with_verdict, curves, judged
from aprverify.evidence.records import Comparison, Row, Run, TestRecord
from aprverify.evidence.reproduction import command
from aprverify.evidence.sentences import gaps, not_shown, verdict_sentence
from aprverify.evidence.status import GateStatus, gate_statuses
from aprverify.evidence.teeth import teeth_lines

MARGINS_PICTURE = "margins.svg"
TEETH_PICTURE = "teeth.svg"
CURVES_PICTURE = "curves.svg"
ERRORS_PICTURE = "errors.svg"
MATRIX_PICTURE = "matrix.svg"
PICTURES = {
    MARGINS_PICTURE: "Share of its tolerance that each claim used",
    TEETH_PICTURE: "Planted defects by test: caught, survived, not run",
    CURVES_PICTURE: "Recorded curves: losses by optimizer step",
    ERRORS_PICTURE: "Errors by depth, in units of their bound",
    MATRIX_PICTURE: "Every planted defect under every falsifier that was crossed with it",
}
"""The pictures beside a report, and what each shows."""
_CLOSEST_SHOWN = 10
_REASONS_SHOWN = 6
_GATES_SHOWN = 40
_FAILURES_SHOWN = 5
_PLACES_SHOWN = 8
_CELL = 40
_CASE = 64
_SIDES = 22


@dataclass(frozen=True)
class Section:
    """A part of a report that stands or is left out as a whole."""

    title: str
    lines: list[str]

    @property
    def text(self) -> str:
        """The part with its heading."""
        return "\n".join([f"## {self.title}", "", *self.lines])


def render_report(run: Run, earlier: Run | None = None) -> str:
    """The whole run as Markdown. Its first line says what the run does not show.

    `earlier` is a run to compare with. The report that is kept beside a run has none.
    """
    parts = [*head(run, earlier), _pictures(run), *(s.text for s in sections(run, earlier))]
    return "\n\n".join(parts) + "\n"


def head(run: Run, earlier: Run | None = None) -> list[str]:
    """What is not shown, the verdict, and the answers: a paragraph each."""
    run = in_plan_order(run)
    statuses = gate_statuses(run.contracts, run.rows)
    return [
        f"**Not shown:** {escape(not_shown(run))}",
        f"# {escape(run.header.subject)}, {run.header.started[:10]}",
        f"**{escape(verdict_sentence(run))}**",
        "\n".join(f"- {line}" for line in answers(run, statuses, earlier)),
    ]


def sections(run: Run, earlier: Run | None = None) -> list[Section]:
    """Everything below the head, in the order in which a reviewer needs it; none is empty."""
    run = in_plan_order(run)
    changed = [] if earlier is None else _changed(earlier, run)
    named = {
        "Gates": _gates(run),
        "Failures": _failures(run),
        "Closest to failing": _closest_to_failing(run.rows),
        "What did not run": _not_run(run.rows),
        "What changed": changed,
        "Teeth": teeth_lines(run),
        "Matrix": matrix_lines(run),
        "Provenance": provenance_lines(run),
        "Every entry": _every_entry(run.rows),
    }
    return [Section(title, lines) for title, lines in named.items() if lines]


def gates_with_rows(run: Run) -> tuple[list[GateStatus], list[GateStatus]]:
    """The gates that some row of the run is about, and the others."""
    touched = {row.test for row in run.rows}
    tests = {(c.id, gate.id): gate.tests for c in run.contracts for gate in c.gates}
    with_rows: list[GateStatus] = []
    without: list[GateStatus] = []
    for status in gate_statuses(run.contracts, run.rows):
        about = touched.intersection(tests[status.contract, status.gate])
        (with_rows if about else without).append(status)
    return with_rows, without


def pictures_of(run: Run) -> list[str]:
    """The names of the pictures that the run has something to show on."""
    claims = claims_with_verdict(run.rows)
    drawn = {
        MARGINS_PICTURE: bool(nearest(run.rows)),
        TEETH_PICTURE: any(row.kind == "teeth" for row in run.rows),
        CURVES_PICTURE: any(curves(row) for row in claims),
        ERRORS_PICTURE: any(pair for row in claims for pair in judged(row)),
        MATRIX_PICTURE: run.matrix is not None,
    }
    return [name for name, wanted in drawn.items() if wanted]


def _pictures(run: Run) -> str:
    return "\n".join(f"![{PICTURES[name]}]({name})" for name in pictures_of(run))


def _gates(run: Run) -> list[str]:
    with_rows, without = gates_with_rows(run)
    blocking = [status for status in with_rows if status.ship_blocking]
    lines = [
        "Shown is the comparison that fails, or else the measurement nearest to failing (a count "
        "only where nothing was measured), with its margin in units of its tolerance. Teeth are "
        "the planted defects caught of those declared.",
        "",
    ]
    if len(with_rows) <= _GATES_SHOWN:
        lines += _gate_table(run, with_rows)
    else:
        lines += [*_gate_table(run, blocking), "", *_contract_table(with_rows), ""]
        lines += details(f"All {len(with_rows)} gates", _gate_table(run, with_rows))
    if reasons := [_why(status) for status in with_rows if status.why]:
        lines += ["", "Why a gate is not DISCHARGED, or is without some of its teeth:", ""]
        lines += reasons[:_REASONS_SHOWN]
        if rest := reasons[_REASONS_SHOWN:]:
            lines += ["", *details(f"{count(len(rest), 'more gate')}", rest)]
    if without:
        names = ", ".join(code(status.gate) for status in without)
        lines += ["", *details(f"{count(len(without), 'gate')} without a row in this run", [names])]
    return lines


def _gate_table(run: Run, statuses: Sequence[GateStatus]) -> list[str]:
    head = ("gate (**bold** blocks shipping)", "status", "decides", "margin", "teeth")
    return table(head, _gate_rows(run, statuses), "lllrr")


def _contract_table(statuses: Sequence[GateStatus]) -> list[str]:
    """A line a contract: how many of its gates have which status, worst first, and its teeth."""
    by_contract: dict[str, list[GateStatus]] = {}
    for status in statuses:
        by_contract.setdefault(status.contract, []).append(status)
    rows = []
    for contract, gates in by_contract.items():
        seen = Counter(gate.status for gate in gates)
        counts = ", ".join(f"{seen[s]} {s.name}" for s in sorted(seen))
        caught = sum(gate.teeth_caught for gate in gates)
        declared = sum(gate.teeth_declared for gate in gates)
        rows.append([escape(contract), str(len(gates)), counts, f"{caught}/{declared}"])
    return table(("contract", "gates", "worst first", "teeth"), rows, "lrlr")


def _gate_rows(run: Run, statuses: Sequence[GateStatus]) -> Iterator[list[str]]:
    tests = {(c.id, gate.id): gate.tests for c in run.contracts for gate in c.gates}
    contract = ""
    for status in statuses:
        if status.contract != contract:
            contract = status.contract
            yield [f"*{escape(contract)}*", "", "", "", ""]
        about = tests[status.contract, status.gate]
        yield _gate_cells(status, deciding([row for row in run.rows if row.test in about]))


def _gate_cells(status: GateStatus, near: Near | None) -> list[str]:
    name = escape(status.gate)
    return [
        f"**{name}**" if status.ship_blocking else name,
        status.status.name,
        "–" if near is None else code(clip(" ".join(observed_and_bound(near.comparison)), _SIDES)),
        "–" if near is None else tolerances(near.margin),
        f"{status.teeth_caught}/{status.teeth_declared}",
    ]


def _why(status: GateStatus) -> str:
    more = f" (and {len(status.why) - 1} more)" if len(status.why) > 1 else ""
    return f"- {escape(status.gate)}: {escape(status.why[0])}{more}"


def _failures(run: Run) -> list[str]:
    """What failed, those without a verdict last: they open on a click, unless nothing else did."""
    failed = [row for row in run.rows if row.outcome not in ("held", "caught", "not_run")]
    judged = [row for row in failed if row.outcome != "broken"]
    broken = [row for row in failed if row.outcome == "broken"]
    tests = {test.id: test for contract in run.contracts for test in contract.tests}
    sections = [[*_failure(run, row, tests[row.test]), ""] for row in (*judged, *broken)]
    shown = min(_FAILURES_SHOWN, len(judged) or len(broken))
    lines = _first_at_fault(failed)
    lines += [line for section in sections[:shown] for line in section]
    if rest := [line for section in sections[shown:] for line in section]:
        lines += [*details(f"{len(sections) - shown} more", rest), ""]
    return lines[:-1]


def _first_at_fault(failed: Sequence[Row]) -> list[str]:
    """The places that are named, each once, and why others are not."""
    found = places(failed)
    if not found:
        return []
    shown = [f"- {escape(place.said)} ({_cited(place)})" for place in found[:_PLACES_SHOWN]]
    if rest := found[_PLACES_SHOWN:]:
        entries = count(sum(len(place.rows) for place in rest), "entry", "entries")
        shown.append(f"- and {len(rest)} more, of {entries}, told below")
    return [
        "First at fault, seen when falsified entries were run once more, watched; no verdict rests "
        "on it:",
        "",
        *shown,
        "",
    ]


def _cited(place: Place) -> str:
    return f"{count(len(place.rows), 'entry', 'entries')}, as {code(place.rows[0].key)}"


def _failure(run: Run, row: Row, test: TestRecord) -> list[str]:
    lines = [f"### {code(row.key)} {row.outcome}", "", escape(test.title), ""]
    if row.reason is not None:
        lines += [f"{escape(row.reason.kind)}: {escape(clip(row.reason.detail, 600))}", ""]
    if row.outcome == "survived":
        lines += [f"The planted defect {code(row.defect or '')} changed outputs, yet all held:", ""]
    shown = [c for c in row.comparisons if row.outcome == "survived" or not c.holds]
    if shown:
        cells = (
            [f"{escape(c.claim)}<br>{code(c.text)}", *_sides(c, 30), _margin(c, row)] for c in shown
        )
        lines += [*table(("claim", "observed", "bound", "margin"), cells, "lrlr"), ""]
    if row.localization is not None:
        lines += [f"First at fault: {escape(first_fault(row.localization))}", ""]
    if row.outcome == "falsified" and test.if_fails:
        lines += [f"Look at: {escape(test.if_fails)}", ""]
    return [*lines, f"Reproduce: {code(command(run, row))}"]


def _margin(comparison: Comparison, row: Row) -> str:
    return tolerances(tolerance_margin(comparison, row.comparisons))


def _sides(comparison: Comparison, width: int) -> tuple[str, str]:
    observed, bound = observed_and_bound(comparison)
    return code(clip(observed, width)), code(clip(bound, width))


def _closest_to_failing(rows: Sequence[Row]) -> list[str]:
    nearest = _one_a_claim(nearest_first(rows))
    if not nearest:
        return []
    cells = (
        [tolerances(near.margin), _claim_cell(near), *_sides(near.comparison, 18)]
        for near in nearest[:_CLOSEST_SHOWN]
    )
    return [
        "Of what held, the smallest margins in units of the tolerance: 1 is nothing of it used, "
        "0 is at the bound. Each claim is shown once, in the case in which it is tightest. Exact "
        "claims have no margin, and counts that reach their bound are left out.",
        "",
        *table(("margin", "claim and case", "observed", "bound"), cells, "rlrl"),
    ]


def _one_a_claim(nearest: Sequence[Near]) -> list[Near]:
    seen: dict[tuple[str, str], Near] = {}
    for near in nearest:
        seen.setdefault((near.row.test, near.comparison.claim), near)
    return list(seen.values())


def _claim_cell(near: Near) -> str:
    claim = f"{escape(near.row.test)}: {escape(near.comparison.claim)}"
    return f"{claim}<br>{wrapped_code(near.row.case_id, _CASE)}"


def _not_run(rows: Sequence[Row]) -> list[str]:
    groups = gaps(rows)
    if not groups:
        return []
    lines = table(
        ("entries", "why, and what would let it run"),
        (
            [
                str(len(gap.rows)),
                escape(gap.reason.detail or gap.reason.kind)
                + (f"<br>{code(gap.reason.remedy)}" if gap.reason.remedy else ""),
            ]
            for gap in groups
        ),
        "rl",
    )
    for gap in groups:
        summary = f"{count(len(gap.rows), 'entry', 'entries')}: {escape(gap.reason.detail)}"
        lines += ["", *details(summary, [f"- {code(row.key)}" for row in gap.rows])]
    return lines


def _changed(earlier: Run, run: Run) -> list[str]:
    _, *lines = changes_lines(changes_between(earlier, run), "###") or ["", "Nothing."]
    return lines


def _every_entry(rows: Sequence[Row]) -> list[str]:
    lines = table(
        ("entry", "outcome", "claim", "observed", "bound", "margin", "s"),
        (cells for row in rows for cells in _entry(row)),
        "lllrlrr",
    )
    return details(count(len(rows), "entry", "entries"), lines)


def _entry(row: Row) -> Iterator[list[str]]:
    seconds = number(float(row.seconds))
    if not row.comparisons:
        yield [code(row.key), row.outcome, "–", "–", "–", "–", seconds]
    for comparison in row.comparisons:
        cells = [escape(comparison.claim), *_sides(comparison, _CELL), _margin(comparison, row)]
        yield [code(row.key), row.outcome, *cells, seconds]
