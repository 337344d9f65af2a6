"""The picture of a run: every point inside it, whatever the numbers are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from trainer.run.curves import write_curves
from trainer.run.metrics import MetricsLog, StepMetrics

NAMESPACE = "{http://www.w3.org/2000/svg}"


def draw(folder: Path, losses: list[float], val_losses: list[float]) -> list[ElementTree.Element]:
    """The four charts of a run with these losses."""
    with MetricsLog(folder / "log") as log:
        for step, loss in enumerate(losses):
            log.write(StepMetrics(step, loss, 1.0, 0.0, 100.0 * step, None, "no", None))
    write_curves(folder / "curves.svg", folder / "log", val_losses, 2)
    return ElementTree.parse(folder / "curves.svg").findall(f"{NAMESPACE}g")


@pytest.mark.parametrize(
    ("losses", "val_losses"),
    [
        ([3.0], []),
        ([0.0, 0.0], [0.0]),
        ([5.0, 4.0, 3.0, 2.0], [4.5, 2.5]),
        ([1e30, 1e-30, 5.0], [1e10]),
        ([float(step % 7) for step in range(5000)], [3.0] * 2500),
    ],
)
def test_every_point_lies_inside_its_chart(
    tmp_path: Path, losses: list[float], val_losses: list[float]
) -> None:
    """One step, constant values, extremes, long runs: four charts, at most 800 points a line."""
    charts = draw(tmp_path, losses, val_losses)
    assert len(charts) == 4
    for chart in charts:
        for line in chart.findall(f"{NAMESPACE}polyline"):
            points = [point.split(",") for point in line.attrib["points"].split()]
            assert len(points) <= max(800, len(val_losses))
            assert all(0 <= float(x) <= 520 and 0 <= float(y) <= 240 for x, y in points)


def test_falling_loss_falls_on_the_page(tmp_path: Path) -> None:
    """The loss chart's first line goes down from left to right: y grows downwards in SVG."""
    loss = draw(tmp_path, [5.0, 4.0, 3.0, 2.0], [])[0]
    line = next(x for x in loss.iter(f"{NAMESPACE}polyline") if x.attrib["stroke"] == "#9db7d5")
    places = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert places == sorted(places) and places[0][1] < places[-1][1]


def test_empty_log_draws_nothing(tmp_path: Path) -> None:
    """A run that ended before its first step has no picture."""
    (tmp_path / "log").write_text("")
    write_curves(tmp_path / "curves.svg", tmp_path / "log", [], 2)
    assert not (tmp_path / "curves.svg").exists()
