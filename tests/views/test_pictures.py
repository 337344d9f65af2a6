"""Pictures: they are XML, follow the reader's colour scheme, run nothing and fetch nothing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from aprverify.evidence.records import Run
from aprverify.views.beside import files_of_index, pictures
from aprverify.views.pictures.history import render_history
from aprverify.views.pictures.layers import render_layers
from aprverify.views.pictures.losses import render_losses
from aprverify.views.pictures.margins import render_margins
from aprverify.views.pictures.svg import text_of
from aprverify.views.pictures.teeth import render_teeth
from tests.evidence.builder import build_run, claiming, comparison, contract, row

from .runs import NASTY, committed, mixed

SVG = "{http://www.w3.org/2000/svg}"


def all_pictures(tmp_path: Path) -> list[str]:
    """Of one of everything and of what is committed."""
    runs = [mixed(tmp_path), *committed()]
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
    allowed = {"svg", "title", "desc", "style", "rect", "text", "line", "circle", "g"}
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


def test_losses_are_drawn_where_both_were_measured(tmp_path: Path) -> None:
    """And no picture of them is made of a run that has none, or only planted ones."""
    losses = {"loss": 0.5, "first_loss": 10.0, "final_loss": 4.0}
    with_losses = build_run(tmp_path / "a", (row(measures=losses),))
    assert "losses.svg" in pictures(with_losses)
    assert any(
        text.startswith("10.000 → 4.000  TEST-A") for text in texts(render_losses(with_losses))
    )
    planted = row("caught", defect="drop-bias", measures={**losses, "loss": 2.0})
    assert "losses.svg" not in pictures(build_run(tmp_path / "b", (row(), planted)))
    assert pictures(build_run(tmp_path / "c", (row("not_run"),))) == {}


def test_the_layer_of_the_largest_error_is_drawn(tmp_path: Path) -> None:
    """By claim and quantity: in its column, how often, and how large at most."""
    cases = {name: "full" for name in ("a", "b", "c")}
    measured = [
        {"loss": 0.5, "gradient_error": 1e-6, "worst_gradient": "model.layers.2.q.weight"},
        {"loss": 0.5, "gradient_error": 3e-6, "worst_gradient": "model.layers.2.k.weight"},
        {"loss": 0.5, "forward_ratio": 1.5, "forward_worst": "embed_tokens.out"},
    ]
    rows = [row(case=case, measures=m) for case, m in zip(cases, measured, strict=True)]
    run = build_run(tmp_path, tuple(rows), contracts=(contract(cases),))
    assert "layers.svg" in pictures(run)
    picture = render_layers(run)
    assert said(picture) == ["TEST-A gradient: 2 cases", "TEST-A forward: 1 case"]
    assert {"at most 3e-06", "at most 1.5"} <= set(texts(picture))
    columns = {
        text.text: float(text.attrib["x"])
        for text in ET.fromstring(picture).iter(f"{SVG}text")
        if text.attrib["text-anchor"] == "middle"
    }
    dots = [float(dot.attrib["cx"]) for dot in ET.fromstring(picture).iter(f"{SVG}circle")]
    assert dots == [columns["2"], columns["–"]]
