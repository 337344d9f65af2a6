"""The matrix on the page: only where a run has one, counted, and as an image that does nothing."""

from __future__ import annotations

import base64
from pathlib import Path

from aprverify.evidence.reader import read_run
from aprverify.views.html.page import render
from aprverify.views.pictures.matrix import render_matrix

from ..evidence.test_crosses import KILLED, _run
from .tree import parse


def test_the_matrix_has_a_chapter_with_its_outcomes_and_its_picture(tmp_path: Path) -> None:
    """The picture is that of matrix.svg; the policy of the page lets images in as data only."""
    run = _run(tmp_path, KILLED, planned=3, budget=1.0)
    page = parse(render(run))
    (chapter,) = page.all("section", id="matrix")
    assert [a for a in page.all("a", href="#matrix")]
    (picture,) = chapter.all("img")
    source = picture.attributes["src"] or ""
    kind, _, data = source.partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(data).decode() == render_matrix(run)
    (table,) = chapter.all("table")
    rows = [[cell.text for cell in row.all("td")] for row in table.all("tr")]
    counts = {row[0]: int(row[1]) for row in rows if row}
    assert counts == {
        "killed": 1, "passed": 0, "unreached": 0, "not applicable": 0, "broken": 0, "not tried": 2
    }  # fmt: skip


def test_a_run_without_a_matrix_has_no_such_chapter(tmp_path: Path) -> None:
    """Nor a link to it."""
    run = _run(tmp_path)
    assert run.matrix is not None
    page = parse(render(read_run(tmp_path / "declared")))
    assert not page.all("section", id="matrix") and not page.all("a", href="#matrix")
