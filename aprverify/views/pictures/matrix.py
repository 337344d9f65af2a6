"""Every defect under every falsifier that was crossed with it, by contract on both sides.

There are tens of thousands of pairs, so a row of marks of one kind is one path, with one title that
names what it marks. Kinds differ in shape and size too: colour is never all that tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aprverify.evidence.crosses import Matrix
from aprverify.evidence.matrix_rules import owners
from aprverify.evidence.order import in_plan_order
from aprverify.evidence.records import Run
from aprverify.views.pictures.svg import (
    CHARACTER,
    clipped,
    document,
    figure,
    label,
    line,
    text_of,
)

_STEP = 9
_LABEL = 40
_LEFT = _LABEL * CHARACTER + 14
_LEGEND = (
    ("declared", "caught, as declared"),
    ("survived", "survived, though declared"),
    ("killed", "caught, undeclared"),
    ("broken", "broken"),
    ("passed", "passed, undeclared"),
    ("", "blank: not in force there, does not apply or not tried"),
)
_COLOURS = {
    "declared": "good",
    "survived": "bad",
    "killed": "mark",
    "broken": "open",
    "passed": "none",
}


def render_matrix(run: Run) -> str:
    """Defects down, falsifiers across; contracts apart."""
    run = in_plan_order(run)
    matrix = run.matrix
    if matrix is None:
        return document(10, 10, "Matrix", "No defect was crossed.", [])
    columns, lines_across = _across(run, matrix)
    names = max((len(test) for test in columns), default=0)
    top = 56 + CHARACTER * max(names, 8)
    places, headings = _down(run, top)
    right = _LEFT + _STEP * (max(columns.values(), default=0) + 1)
    bottom = max(places.values(), default=top) + _STEP
    parts = [*_legend()]
    for test, place in columns.items():
        parts.append(label(_LEFT + _STEP * place + 8, top - 6, test, turn=-90))
    for place in lines_across:
        x = _LEFT + _STEP * place + _STEP / 2
        parts.append(line(x, top, x, bottom))
    for contract, y in headings:
        parts.append(label(8, y + 8, contract, kind="faint"))
        parts.append(line(_LEFT, y + 5, right, y + 5))
    for defect, y in places.items():
        parts.append(label(_LEFT - 6, y + 8, clipped(defect, _LABEL), anchor="end"))
    for defect, kinds in _marks(run, matrix, columns).items():
        for kind, tests in kinds.items():
            parts.append(_path(kind, defect, tests, columns, places[defect]))
    about = "Which falsifier catches which planted defect, declared or not, grouped by contract."
    return document(max(right, 760) + 12, bottom + 12, "Matrix", about, parts)


def _across(run: Run, matrix: Matrix) -> tuple[dict[str, int], list[int]]:
    """The place of each test that some row or cross is about, and the gaps between contracts."""
    shown = {column.test for column in matrix.columns.values()}
    shown |= {row.test for row in run.rows if row.outcome in ("caught", "survived")}
    places: dict[str, int] = {}
    gaps: list[int] = []
    at = 0
    for contract in run.contracts:
        tests = [test.id for test in contract.tests if test.id in shown]
        for test in tests:
            places[test] = at
            at += 1
        if tests:
            gaps.append(at)
            at += 1
    return places, gaps[:-1]


def _down(run: Run, top: float) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """The height of each defect, under the first contract that declares it."""
    places: dict[str, float] = {}
    headings: list[tuple[str, float]] = []
    y = top
    last = ""
    for defect, contracts in owners(run).items():
        if contracts[0] != last:
            last = contracts[0]
            headings.append((last, y))
            y += 12
        places[defect] = y
        y += _STEP
    return places, headings


def _marks(run: Run, matrix: Matrix, columns: dict[str, int]) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, str]] = {}
    for cross in matrix.crosses:
        if cross.outcome in ("killed", "passed", "broken"):
            test = matrix.columns[cross.column].test
            found.setdefault(cross.defect, {})[test] = cross.outcome
    # What was declared is told as its own row ended, under the case that the contract names.
    order = {"broken": 0, "caught": 1, "survived": 2}
    for row in sorted(run.rows, key=lambda row: order.get(row.outcome, -1)):
        if row.defect is not None and row.outcome in order:
            kind = {"caught": "declared"}.get(row.outcome, row.outcome)
            if kind != "broken" or row.test not in found.get(row.defect, {}):
                found.setdefault(row.defect, {})[row.test] = kind
    marks: dict[str, dict[str, list[str]]] = {}
    for defect, by_test in found.items():
        for test in sorted(by_test.keys() & columns.keys(), key=columns.__getitem__):
            marks.setdefault(defect, {}).setdefault(by_test[test], []).append(test)
    return marks


def _path(kind: str, defect: str, tests: Sequence[str], columns: dict[str, int], y: float) -> str:
    drawn = "".join(_shape(kind, _LEFT + _STEP * columns[test], y) for test in tests)
    says = f"{defect} {kind}: {', '.join(tests)}"
    told = "" if kind == "passed" else f"<title>{text_of(says)}</title>"
    return f'<path class="{_COLOURS[kind]}" fill-rule="evenodd" d="{drawn}">{told}</path>'


def _shape(kind: str, x: float, y: float) -> str:
    """A full square, a ring, a small square, a diamond or a dot, in a field of `_STEP` px."""
    if kind == "declared":
        return _square(x, y, 8)
    if kind == "survived":
        return _square(x, y, 8) + _square(x + 2, y + 2, 4)
    if kind == "killed":
        return _square(x + 1.5, y + 1.5, 5)
    if kind == "broken":
        return f"M{figure(x + 4)} {figure(y)}l4 4l-4 4l-4-4z"
    return _square(x + 3, y + 3, 2)


def _square(x: float, y: float, side: float) -> str:
    size = figure(side)
    return f"M{figure(x)} {figure(y)}h{size}v{size}h-{size}z"


def _legend() -> Iterator[str]:
    x = 8.0
    y = 10.0
    for kind, words in _LEGEND:
        if kind:
            yield f'<path class="{_COLOURS[kind]}" fill-rule="evenodd" d="{_shape(kind, x, y)}"/>'
        yield label(x + 13, y + 8, words, kind="faint")
        x += 13 + CHARACTER * len(words) + 16
        if x > 560:
            x, y = 8.0, y + 16
