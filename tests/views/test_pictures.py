"""Pictures: they are XML, follow the reader's colour scheme, run nothing and fetch nothing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from aprverify.evidence.records import Run
from aprverify.views.beside import files_of_index, pictures
from aprverify.views.pictures.curves import render_curves, render_errors
from aprverify.views.pictures.history import render_history
from aprverify.views.pictures.margins import render_margins
from aprverify.views.pictures.svg import text_of
from aprverify.views.pictures.teeth import render_teeth
from tests.evidence.builder import build_run, claiming, comparison, contract, row, series

from .runs import NASTY, committed, mixed, recording

SVG = "{http://www.w3.org/2000/svg}"


def all_pictures(tmp_path: Path) -> list[str]:
    """Of one of everything and of what is committed."""
    runs = [mixed(tmp_path), recording(tmp_path / "series"), *committed()]
    drawn = [picture for run in runs for picture in pictures(run).values()]
    return [*drawn, render_history(runs), files_of_index(runs)["history.svg"]]


def texts(picture: str) -> list[str]:
    """Everything written on it."""
    return [element.text or "" for element in ET.fromstring(picture).iter(f"{SVG}text")]


def said(picture: str) -> list[str]:
    """What its marks say under the pointer."""
    return [element.text or "" for element in ET.fromstring(picture).iter(f"{SVG}title")][1:]


def test_a_picture_runs_nothing_and_fetches_nothing(tmp_path: Path) -> None:
    """A code-hosting page shows it as an image; elsewhere it must be as harmless."""
    allowed = {"svg", "title", "desc", "style", "rect", "text", "line", "polyline", "circle", "g"}
    for picture in all_pictures(tmp_path):
        elements = list(ET.fromstring(picture).iter())
        assert {element.tag.removeprefix(SVG) for element in elements} <= allowed
        names = {name for element in elements for name in element.attrib}
        assert not any(name.startswith("on") or "href" in name for name in names)
        assert re.findall(r"https?://[^\"]*", picture) == ["http://www.w3.org/2000/svg"]
        assert "url(" not in picture and "@import" not in picture


def test_a_picture_follows_light_and_dark(tmp_path: Path) -> None:
    """Each class has a colour in both, none is fixed on an element, and the ground is painted."""
    for picture in all_pictures(tmp_path):
        style = ET.fromstring(picture).findtext(f"{SVG}style") or ""
        light, dark = style.split("@media (prefers-color-scheme:dark)")
        used = set(re.findall(r'class="([\w-]+)"', picture))
        for name in used:
            assert f".{name}{{" in light and f".{name}{{" in dark
        assert "ground" in used
        assert not re.search(r' (fill|stroke|style)="', picture)


def test_nothing_is_drawn_outside_of_the_picture(tmp_path: Path) -> None:
    """Every mark and every text that is not turned lies within its width and height."""
    for picture in all_pictures(tmp_path):
        root = ET.fromstring(picture)
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for element in root.iter(f"{SVG}text"):
            length = 6.1 * len(element.text or "")
            x, y = float(element.attrib["x"]), float(element.attrib["y"])
            if "transform" in element.attrib:
                assert y - length >= 0 and x <= width
                continue
            shift = {"start": 0, "middle": 0.5, "end": 1}[element.attrib["text-anchor"]]
            left = x - shift * length
            assert left >= -1 and left + length <= width + 1 and 0 < y <= height, element.text


def test_no_text_leaves_its_place(tmp_path: Path) -> None:
    """Markup in names stays text, and the picture stays XML."""
    nasty = "</svg><script>alert('1')</script>&amp;\"q\""
    declared = contract(counter_examples=(nasty,))
    run = build_run(tmp_path, (row(), row("caught", defect=nasty)), contracts=(declared,))
    assert said(render_teeth(run)) == [f"TEST-A, {nasty}: caught"]
    assert not re.search("[\x00-\x08\x0b-\x1f\ufffe]", text_of(f"{NASTY}\ufffe").replace("\r", ""))


def test_a_claim_at_its_bound_stands_on_the_line_and_a_failed_one_right_of_it(
    tmp_path: Path,
) -> None:
    """Left is good: a hundredth of the tolerance is two decades left of it."""
    cases = {name: "full" for name in ("a", "b", "c")}
    rows = (row(case="a", observed=0.01), row(case="b", observed=1.0), row("falsified", case="c"))
    picture = render_margins(build_run(tmp_path, rows, contracts=(contract(cases),)))
    places = {
        dot.findtext(f"{SVG}title", "").partition(":")[0]: float(dot.attrib["cx"])
        for dot in ET.fromstring(picture).iter(f"{SVG}circle")
    }
    (at_bound,) = (
        float(line.attrib["x1"])
        for line in ET.fromstring(picture).iter(f"{SVG}line")
        if line.attrib["class"] == "ink-stroke"
    )
    decade = (at_bound - places["TEST-A[a]"]) / 2
    assert places["TEST-A[b]"] == pytest.approx(at_bound)
    assert places["TEST-A[c]"] == pytest.approx(at_bound + decade * 0.30103, abs=0.02)
    assert decade > 20


def test_every_declared_pair_has_its_cell(tmp_path: Path) -> None:
    """A survivor under any case shows, although another case did not run."""
    found = said(render_teeth(mixed(tmp_path)))
    assert found == ["TEST-A, drop-bias: caught", "TEST-A, eps: survived"]


def test_a_survivor_shows_beside_a_case_in_which_the_defect_was_caught(tmp_path: Path) -> None:
    """One survivor spoils the pair; one that did not run does not."""
    declared = contract({"a": "full", "b": "full"})
    caught = row("caught", case="a", defect="drop-bias")
    for other, overall in (("survived", "survived"), ("not_run", "caught")):
        rows = (caught, row(other, case="b", defect="drop-bias"))
        run = build_run(tmp_path / other, rows, contracts=(declared,))
        assert said(render_teeth(run)) == [f"TEST-A, drop-bias: {overall}"]


def test_a_band_is_drawn_by_its_near_side(tmp_path: Path) -> None:
    """The far bound is no second dot."""
    low = comparison(0.9, 0.0, ">=", text="0 <= loss")
    high = comparison(0.9, 1.0, "<=", text="loss <= 1")
    body = row(comparisons=[low, high], measures={"loss": 0.9})
    run = build_run(tmp_path, (body,), contracts=(claiming("0 <= loss <= 1"),))
    assert said(render_margins(run)) == ["TEST-A[cpu-f32]: 0.8"]


def test_the_history_has_a_row_a_gate_and_a_column_a_run(tmp_path: Path) -> None:
    """Oldest first, by each run's own rows."""

    def run_on(day: str, *rows: dict[str, object]) -> Run:
        started = f"2026-01-{day}T08:00:00Z"
        bodies = tuple({**body, "started": started} for body in rows)
        return build_run(tmp_path / day, bodies, started=started, run_id=f"run-{day}")

    runs = [run_on("06", row(), row("caught", defect="drop-bias")), run_on("05", row("falsified"))]
    picture = render_history(runs)
    assert said(picture) == ["GATE-A: FALSIFIED", "GATE-A: DISCHARGED"]
    written = texts(picture)
    assert written.index("run-05 bundled") < written.index("run-06 bundled")
    assert "GATE-A !" in written


def test_there_is_a_picture_of_what_was_recorded_and_of_nothing_else(tmp_path: Path) -> None:
    """Neither of a run without series, nor of planted defects alone."""
    assert {"curves.svg", "errors.svg"} <= pictures(recording(tmp_path / "a")).keys()
    planted = row(
        "caught", defect="drop-bias", series=[series(), series(name="e", claim="c1", y=[2])]
    )
    run = build_run(tmp_path / "b", (row(), planted))
    assert pictures(run).keys() == {"margins.svg", "teeth.svg"}
    assert len(said(render_curves(run))) == len(said(render_errors(run))) == 0
    assert pictures(build_run(tmp_path / "c", (row("not_run"),))) == {}


def places(picture: str, name: str) -> list[tuple[float, float]]:
    """The places of the first line that says `name`, in px."""
    lines = ET.fromstring(picture).iter(f"{SVG}polyline")
    found = next(one for one in lines if one.findtext(f"{SVG}title") == name)
    return [tuple(map(float, pair.split(","))) for pair in found.attrib["points"].split()]  # type: ignore[misc]


def ticks(picture: str, anchor: str) -> dict[str, tuple[float, float]]:
    """Where the numbers of an axis stand: y ends at its line, x in the middle below it."""
    return {
        text.text or "": (float(text.attrib["x"]), float(text.attrib["y"]))
        for text in ET.fromstring(picture).iter(f"{SVG}text")
        if text.attrib["text-anchor"] == anchor
    }


def test_a_curve_goes_through_its_points(tmp_path: Path) -> None:
    """By the numbers on the axes, from the first to the last, with its last value at its end."""
    values = [4.0, 2.0, 1.0]
    body = row(series=[series(x=[0, 50, 100], y=values), series(name="held out", x=[100], y=[3])])
    picture = render_curves(build_run(tmp_path, (body,)))
    x, y = ticks(picture, "middle"), ticks(picture, "end")
    drawn = places(picture, "loss")
    assert [left for left, _ in drawn] == pytest.approx(
        [x["0"][0], (x["0"][0] + x["100"][0]) / 2, x["100"][0]]
    )
    assert [top for _, top in drawn] == pytest.approx([y[f"{v:g}"][1] - 4 for v in values])
    assert {"loss 1", "held out 3", "loss, nats/token", "optimizer steps"} <= set(texts(picture))


def test_a_gap_is_no_line(tmp_path: Path) -> None:
    """What was not finite splits the line, and shows as a mark at the top."""
    body = row(series=[series(x=range(5), y=[4.0, 3.0, None, 2.0, 1.0])])
    picture = render_curves(build_run(tmp_path, (body,)))
    lines = [one.attrib["points"] for one in ET.fromstring(picture).iter(f"{SVG}polyline")]
    assert [len(points.split()) for points in lines] == [2, 2]
    assert "loss: 2, not finite" in said(picture)
    assert texts(picture).count("loss 1") == 1


def test_an_error_is_drawn_in_units_of_its_bound(tmp_path: Path) -> None:
    """On the line at its bound, a decade below at a tenth; beyond the axis at its end."""
    errors = [0.02, 0.2, 2.0, 2000.0, 0.0]
    compared = [comparison(2000.0, 2.0)]
    found = series(name="by depth", y=errors, claim="c1", x_label="depth")
    run = build_run(tmp_path, (row("falsified", comparisons=compared, series=[found]),))
    picture = render_errors(run)
    heights = [top for _, top in places(picture, "TEST-A[cpu-f32]")]
    (bound,) = (
        float(one.attrib["y1"])
        for one in ET.fromstring(picture).iter(f"{SVG}line")
        if one.attrib["class"] == "ink-stroke"
    )
    decade = heights[1] - bound
    assert decade > 20 and heights[2] == bound
    assert heights[0] - bound == pytest.approx(2 * decade, abs=0.02)
    assert bound - heights[3] == pytest.approx(decade, abs=0.02)
    assert heights[4] - bound == pytest.approx(3 * decade, abs=0.02)
    assert "TEST-A by depth: 1 case, at most 1000 of the bound" in texts(picture)
    assert 'class="bad-stroke"' in picture and 'class="mark-stroke"' not in picture


def test_every_case_of_a_claim_is_a_line_of_one_plot(tmp_path: Path) -> None:
    """Only what failed is marked as bad; an error that is not finite is told in the title."""
    picture = render_errors(recording(tmp_path))
    assert "TEST-A by depth: 4 cases, an error is not finite" in texts(picture)
    kinds = [
        (one.findtext(f"{SVG}title"), one.attrib["class"])
        for one in ET.fromstring(picture).iter(f"{SVG}polyline")
    ]
    assert kinds == [
        ("TEST-A[cpu-a]", "mark-stroke"),
        ("TEST-A[cpu-b]", "mark-stroke"),
        ("TEST-A[cpu-c]", "bad-stroke"),
    ]


def test_the_largest_numbers_have_a_place(tmp_path: Path) -> None:
    """Their distance has no float, and one value alone has no distance at all."""
    wide = series(x=[-1.7e308, 0.5, 1.7e308], y=[-1.7e308, 0, 1.7e308])
    alone = series(name="alone", x=[1], y=[1], y_unit="other")
    tiny = series(name="tiny", y=[5e-324, 0.0, 5e-324], y_unit="tiny")
    picture = render_curves(build_run(tmp_path, (row(series=[wide, alone, tiny]),)))
    assert not re.search(r'"[^"]*\b(nan|inf)\b[^"]*"', picture)
    assert len(places(picture, "loss")) == 3
