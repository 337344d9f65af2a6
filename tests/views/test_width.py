"""Reports and the index fit a review page: no table wider than 110 columns before a click."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aprverify.evidence.index import render_index
from aprverify.evidence.records import Run
from aprverify.evidence.report import gates_with_rows, render_report

from .runs import committed, mixed


def widths(markdown: str) -> dict[str, int]:
    """The width of each table as a page lays it out, by its head; what opens on a click apart."""
    shown = re.sub(r"<details>.*?</details>", "", markdown, flags=re.DOTALL)
    found = {}
    for block in re.findall(r"(?:^\|.*\n)+", shown, re.MULTILINE):
        lines = [line for line in block.splitlines() if not re.fullmatch(r"[|: -]+", line)]
        cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
        columns = [max(_width(cell) for cell in column) for column in zip(*cells, strict=True)]
        found[lines[0]] = sum(columns) + len(columns) - 1
    return found


def _width(cell: str) -> int:
    plain = re.sub(r"\]\([^)]*\)", "", cell.strip().lstrip("["))
    return max(len(re.sub(r"[`*\\]", "", line)) for line in plain.split("<br>"))


@pytest.mark.parametrize("run", committed(), ids=lambda run: run.header.run_id)
def test_every_table_of_a_committed_report_fits_a_page(run: Run) -> None:
    """With the longest ids that there are."""
    found = widths(render_report(run, run))
    assert len(found) >= 4
    assert {head: width for head, width in found.items() if width > 110} == {}


def test_every_table_of_the_index_fits_a_page(tmp_path: Path) -> None:
    """And of a report with failures."""
    found = widths(render_index(committed(), None))
    assert len(found) == 2
    found |= widths(render_report(mixed(tmp_path)))
    assert {head: width for head, width in found.items() if width > 110} == {}


def test_a_report_can_be_read_in_two_minutes() -> None:
    """At most 130 lines stand before a click, and the answers come in the first fifteen."""
    for run in committed():
        report = render_report(run)
        shown = re.sub(r"<details>.*?</details>", "", report, flags=re.DOTALL)
        assert len([line for line in shown.splitlines() if line]) <= 130
        first = "\n".join(report.splitlines()[:15])
        for question in ("Is the gate met?", "What came closest", "Can the falsifiers fail?"):
            assert question in first


def test_a_large_run_shows_what_blocks_and_a_line_a_contract() -> None:
    """Beyond forty gates all of them open on a click, and none is left out there."""
    run = max(committed(), key=lambda run: len(run.rows))
    with_rows, _ = gates_with_rows(run)
    assert len(with_rows) > 40
    gates = render_report(run).partition("## Gates")[2].partition("\n## ")[0]
    shown, _, opened = gates.partition("<details>")
    for status in with_rows:
        assert status.gate in opened
        assert (f"| **{status.gate}** |" in shown) == status.ship_blocking
        assert f"| {status.contract} |" in shown
