"""Which planted defect each falsifier caught: the matrix as a picture, and its outcomes counted."""

from __future__ import annotations

import base64

from aprverify.evidence.crosses import OUTCOMES, Matrix
from aprverify.evidence.matrix_markdown import matrix_summary
from aprverify.evidence.records import Run
from aprverify.views.html.markup import Markup, element, visible
from aprverify.views.pictures.matrix import render_matrix

FRAGMENT = "matrix"
TITLE = "Defects under falsifiers"
_MEANING = {
    "killed": "in force, and a claim failed",
    "passed": "in force, and every claim held: no fault where it is not declared",
    "unreached": "not in force there",
    "not_applicable": "the falsifier or the defect does not apply to this subject or machine",
    "broken": "no verdict",
}


def crossed(run: Run) -> Markup | None:
    """The chapter of a run that has a matrix; None for any other."""
    if run.matrix is None:
        return None
    return element(
        "section",
        element("h2", TITLE),
        [element("p", visible(line)) for line in matrix_summary(run) if line],
        element("table", _head(), _body(run.matrix), class_="matrix"),
        _picture(run),
        id=FRAGMENT,
    )


def _head() -> Markup:
    return element(
        "thead",
        element("tr", [element("th", name, scope="col") for name in ("outcome", "pairs", "means")]),
    )


def _body(matrix: Matrix) -> Markup:
    rows = [(name.replace("_", " "), matrix.counts[name], _MEANING[name]) for name in OUTCOMES]
    if matrix.untried:
        rows.append(("not tried", matrix.untried, "the time was spent"))
    cells = ((element("td", name), element("td", str(n)), element("td", m)) for name, n, m in rows)
    return element("tbody", [element("tr", *row) for row in cells])


def _picture(run: Run) -> Markup:
    # As an image it brings its own colours and can do nothing to the page.
    picture = base64.b64encode(render_matrix(run).encode()).decode()
    return element(
        "img",
        src=f"data:image/svg+xml;base64,{picture}",
        alt="Each planted defect, in a row, under each falsifier, in a column",
        class_="plot",
    )
