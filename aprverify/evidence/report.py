"""A run for a reviewer: report.md, and the same in short for a terminal.

Both are pure functions of run.jsonl, byte for byte: a report that differs was edited by hand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from aprverify.evidence.markdown import (
    clip,
    code,
    count,
    details,
    escape,
    margin,
    number,
    observed_and_bound,
    table,
)
from aprverify.evidence.records import Comparison, Environment, Row, Run, TestRecord
from aprverify.evidence.sentences import gaps, not_shown, verdict_sentence
from aprverify.evidence.status import GateStatus, gate_statuses

_WORST_TEETH = {
    "survived": "**survived**",
    "broken": "broken",
    "not_run": "not run",
    "inapplicable": "does not apply",
    "caught": "caught",
}
_CLOSEST_SHOWN = 10
_CELL = 40


def render_report(run: Run) -> str:
    """The whole run as Markdown. Its first line says what the run does not show."""
    rows = _in_plan_order(run)
    parts = [
        [f"**Not shown:** {escape(not_shown(run))}"],
        [f"# {escape(run.header.subject)}, {run.header.started[:10]}"],
        [f"**{escape(verdict_sentence(run))}**"],
        _gates(run),
        _failures(run, rows),
        _not_run(rows),
        _teeth(run, rows),
        _closest_margins(rows),
        _provenance(run),
        _appendix(rows),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


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


def _in_plan_order(run: Run) -> list[Row]:
    # Parallel workers finish in any order; a reader compares reports of two runs.
    place = {}
    for c, contract in enumerate(run.contracts):
        for t, test in enumerate(contract.tests):
            for k, case in enumerate(test.cases):
                place[test.id, case] = (c, t, k)
    return sorted(run.rows, key=lambda row: (place[row.test, row.case_id], row.defect or ""))


def _gates(run: Run) -> list[str]:
    with_rows, without = gates_with_rows(run)
    lines = [
        "## Gates",
        "",
        "**Bold** gates block shipping. Shown is the comparison that fails, or else the one "
        "nearest its bound. The margin is the distance to the bound over the larger of the two "
        "sides; teeth are the counter-examples caught of those declared.",
        "",
        *table(
            ("contract", "gate", "status", "observed", "bound", "margin", "teeth"),
            (_gate_cells(status) for status in with_rows),
            "lllrlrr",
        ),
    ]
    if reasons := [_why(status) for status in with_rows if status.why]:
        title = "Why a gate is not DISCHARGED, or is without some of its teeth:"
        lines += ["", title, "", *reasons]
    if without:
        names = ", ".join(code(status.gate) for status in without)
        lines += ["", *details(f"{count(len(without), 'gate')} without a row in this run", [names])]
    return lines


def _gate_cells(status: GateStatus) -> list[str]:
    name = escape(status.gate)
    observed = bound = distance = "–"
    if status.closest is not None:
        observed, bound = (
            code(clip(x, _CELL)) for x in observed_and_bound(status.closest.comparison)
        )
        distance = margin(status.closest.comparison)
    return [
        escape(status.contract),
        f"**{name}**" if status.ship_blocking else name,
        status.status.name,
        observed,
        bound,
        distance,
        f"{status.teeth_caught}/{status.teeth_declared}",
    ]


def _why(status: GateStatus) -> str:
    more = f" (and {len(status.why) - 1} more)" if len(status.why) > 1 else ""
    return f"- {escape(status.gate)}: {escape(status.why[0])}{more}"


def _failures(run: Run, rows: Sequence[Row]) -> list[str]:
    failed = [row for row in rows if row.outcome not in ("held", "caught", "not_run")]
    if not failed:
        return []
    tests = {test.id: test for contract in run.contracts for test in contract.tests}
    lines = ["## Failures"]
    for row in failed:
        lines += ["", *_failure(row, tests[row.test])]
    return lines


def _failure(row: Row, test: TestRecord) -> list[str]:
    lines = [f"### {code(row.key)} {row.outcome}", "", escape(test.title), ""]
    if row.reason is not None:
        lines += [f"{escape(row.reason.kind)}: {escape(clip(row.reason.detail, 600))}", ""]
    if row.outcome == "survived":
        lines += [f"The planted defect {code(row.defect or '')} changed outputs, yet all held:", ""]
    shown = [c for c in row.comparisons if row.outcome == "survived" or not c.holds]
    if shown:
        lines += [
            *table(
                ("claim", "comparison", "observed", "bound", "margin"),
                ([escape(c.claim), code(c.text), *_sides(c, 160), margin(c)] for c in shown),
                "llrlr",
            ),
            "",
        ]
    if row.outcome == "falsified" and test.if_fails:
        lines += [f"Look at: {escape(test.if_fails)}", ""]
    return [*lines, f"Reproduce: {code(_pytest(row))}"]


def _sides(comparison: Comparison, width: int) -> tuple[str, str]:
    observed, bound = observed_and_bound(comparison)
    return code(clip(observed, width)), code(clip(bound, width))


def _pytest(row: Row) -> str:
    return f'pytest "{row.nodeid}"'


def _not_run(rows: Sequence[Row]) -> list[str]:
    groups = gaps(rows)
    if not groups:
        return []
    lines = [
        "## What did not run",
        "",
        *table(
            ("entries", "reason", "what would let it run"),
            (
                [
                    str(len(gap.rows)),
                    escape(gap.reason.detail or gap.reason.kind),
                    code(gap.reason.remedy) if gap.reason.remedy else "–",
                ]
                for gap in groups
            ),
            "rll",
        ),
    ]
    for gap in groups:
        summary = f"{count(len(gap.rows), 'entry', 'entries')}: {escape(gap.reason.detail)}"
        lines += ["", *details(summary, [f"- {code(row.key)}" for row in gap.rows])]
    return lines


def _teeth(run: Run, rows: Sequence[Row]) -> list[str]:
    teeth = [row for row in rows if row.kind == "teeth"]
    if not teeth:
        return ["## Teeth", "", "No defect was planted in this run."]
    devices = sorted({row.device for row in teeth})
    cells: dict[tuple[str, str, str], Counter[str]] = {}
    for row in teeth:
        key = (row.test, row.defect or "", row.device)
        outcome = "inapplicable" if row.inapplicable else row.outcome
        cells.setdefault(key, Counter())[outcome] += 1
    touched = {row.test for row in rows}
    pairs = [
        (test.id, defect)
        for contract in run.contracts
        for test in contract.tests
        if test.id in touched
        for defect in test.counter_examples
    ]
    return [
        "## Teeth",
        "",
        "Each test under each defect that it declares to catch; the number counts cases.",
        "",
        *table(
            ("test", "planted defect", *devices),
            (
                [
                    escape(test),
                    escape(defect),
                    *(_bite(cells.get((test, defect, d))) for d in devices),
                ]
                for test, defect in pairs
            ),
        ),
    ]


def _bite(outcomes: Counter[str] | None) -> str:
    if outcomes is None:
        return "–"
    return ", ".join(
        f"{word} {outcomes[outcome]}" for outcome, word in _WORST_TEETH.items() if outcomes[outcome]
    )


def _closest_margins(rows: Sequence[Row]) -> list[str]:
    held = [
        (comparison.margin, row, comparison)
        for row in rows
        if row.outcome == "held"
        for comparison in row.comparisons
        if comparison.margin is not None and math.isfinite(comparison.margin)
    ]
    if not held:
        return []
    held.sort(key=lambda item: (item[0], item[1].key))
    return [
        "## Closest margins",
        "",
        *table(
            ("margin", "entry", "claim", "observed", "bound"),
            (
                [margin(c), code(row.key), escape(c.claim), *_sides(c, _CELL)]
                for _, row, c in held[:_CLOSEST_SHOWN]
            ),
            "rllrl",
        ),
    ]


def _provenance(run: Run) -> list[str]:
    facts = [(name, value) for name, value in _facts(run) if value]
    lines = ["## Provenance", "", *table(("what", "value"), facts)]
    lines += [
        "",
        *table(
            ("contract", "version", "sha256"),
            ([code(c.path), escape(c.version), code(c.sha256)] for c in run.contracts),
        ),
    ]
    assets = sorted({item for row in run.rows for item in row.assets.items()})
    if assets:
        named = ([code(name), code(sha256)] for name, sha256 in assets)
        lines += ["", *table(("asset used", "sha256"), named)]
    for environment in run.environments:
        about = f"{escape(environment.id)}: {escape(where(environment))}"
        lines += ["", *details(about, table(("what", "value"), _machine(environment)))]
    return lines


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    header, source = run.header, run.header.source
    yield "run", code(header.run_id)
    yield "started, finished", f"{header.started}, {run.footer.finished}"
    yield "duration", f"{number(run.footer.seconds)} s"
    yield "subject", code(header.subject)
    yield "suite", code(header.suite)
    yield "command", code(" ".join(header.command))
    yield "selection", escape(_selection(run))
    yield "required devices", escape(", ".join(header.require) or "none")
    dirty = {True: ", with uncommitted changes", False: ", clean", None: ""}[source.dirty]
    yield "commit", f"{code(source.commit)}{dirty}" if source.commit else "unknown (no git)"
    yield "aprverify", f"{escape(source.aprverify_version)}, {code(source.aprverify_sha256)}"
    yield "sha256 of run.jsonl", code(run.sha256)


def _selection(run: Run) -> str:
    selection = run.header.selection
    if selection.complete:
        return "everything"
    asked = {
        "-k": selection.keyword,
        "-m": selection.markers,
        "paths": " ".join(selection.paths),
        "lane": "" if selection.lane == "all" else selection.lane,
        "teeth": "" if selection.teeth == "declared" else selection.teeth,
    }
    return ", ".join(f"{name} {value}" for name, value in asked.items() if value) or "a part"


def where(environment: Environment) -> str:
    """The machine in a few words: its accelerators, or else its processor."""
    if not environment.gpus:
        return f"{environment.cpu}, {count(environment.cores, 'core')}"
    names = Counter(gpu.name for gpu in environment.gpus)
    return ", ".join(f"{amount} × {name}" for name, amount in sorted(names.items()))


def _machine(environment: Environment) -> Iterator[tuple[str, str]]:
    memory = f"{number(environment.memory_gib)} GiB"
    yield "processor", f"{escape(environment.cpu)}, {count(environment.cores, 'core')}, {memory}"
    for gpu in environment.gpus:
        capability = f"compute capability {escape(gpu.compute_capability)}"
        yield "GPU", f"{escape(gpu.name)}, {number(gpu.memory_gib)} GiB, {capability}"
    if environment.driver:
        yield "driver", escape(environment.driver)
    yield "system", escape(environment.platform)
    yield "Python", escape(environment.python)
    for name, version in sorted(environment.packages.items()):
        yield escape(name), escape(version)
    for name, value in sorted(environment.variables.items()):
        yield code(name), code(value)


def _appendix(rows: Sequence[Row]) -> list[str]:
    lines = table(
        ("entry", "outcome", "claim", "observed", "bound", "margin", "s"),
        (cells for row in rows for cells in _entry(row)),
        "lllrlrr",
    )
    return ["## Every entry", "", *details(count(len(rows), "entry", "entries"), lines)]


def _entry(row: Row) -> Iterator[list[str]]:
    seconds = number(float(row.seconds))
    if not row.comparisons:
        yield [code(row.key), row.outcome, "–", "–", "–", "–", seconds]
    for comparison in row.comparisons:
        cells = [escape(comparison.claim), *_sides(comparison, _CELL), margin(comparison)]
        yield [code(row.key), row.outcome, *cells, seconds]
