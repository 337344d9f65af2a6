"""Recorded series: thinned by a rule, agreeing with the claims that judge them, or refused."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from aprverify.evidence import refusals
from aprverify.evidence.reader import read_run
from aprverify.evidence.series import MOST_POINTS, MOST_SERIES, thinned

from .builder import Body, build_run, comparison, row, series, tamper, write_run


def recorded(found: Body, **changes: Any) -> Body:
    """A row that held with one series; its claim observed 0.5."""
    return row(series=[found], **changes)


def test_a_series_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Whole numbers stay whole, gaps stay gaps, and a row without series has none."""
    found = series(x=[1, 2, 3], y=[0.25, None, 2])
    run = build_run(tmp_path, (recorded(found), row("caught", defect="drop-bias")))
    (read,) = run.rows[0].series
    assert read.points == [(1, 0.25), (2, None), (3, 2)]
    assert (read.x_axis, read.y_axis) == ("optimizer steps", "loss, nats/token")
    assert run.rows[1].series == ()


def test_as_many_points_as_there_is_room_for_all_stay() -> None:
    """Thinning begins at one more."""
    points = [(i, math.sin(i)) for i in range(MOST_POINTS)]
    assert thinned(points) == points


@pytest.mark.parametrize("count", [257, 300, 1000, 12_345])
def test_thinning_keeps_ends_peaks_dips_and_gaps(count: int) -> None:
    """In order, within the cap, whatever the values are; every value is one that was measured."""
    draw = random.Random(count)
    points: list[tuple[float, float | None]] = [(i, draw.gauss(0, 1)) for i in range(count)]
    peak, dip, gap = draw.sample(range(1, count - 1), 3)
    points[peak], points[dip], points[gap] = (peak, 99.0), (dip, -99.0), (gap, None)
    kept = thinned(points)
    assert {points[i] for i in (0, peak, dip, gap, -1)} <= set(kept) <= set(points)
    assert kept == sorted(kept, key=lambda point: point[0])
    assert MOST_POINTS // 2 < len(kept) <= MOST_POINTS


def test_each_stretch_keeps_its_own_lowest_and_highest() -> None:
    """A saw of 84 teeth keeps each tooth's tip and foot: no stretch is passed over."""
    width, teeth = 30, 84
    inner = [float(i % width) for i in range(width * teeth)]
    points = list(enumerate([0.5, *inner, 0.5]))
    kept = [value for _, value in thinned(points)]
    assert kept.count(0.0) == kept.count(float(width - 1)) == teeth


MALFORMED = {
    "x without y": series(x=[1, 2], y=[0.5]),
    "no points": series(x=[], y=[], measured=1),
    "too many points": series(x=range(257), y=[0.5] * 257, measured=257),
    "x that stands still": series(x=[1, 1], y=[0.5, 0.5]),
    "x that runs backwards": series(x=[2, 1], y=[0.5, 0.5]),
    "more points than were measured": series(x=[1, 2], y=[0.5, 0.5], measured=1),
    "fewer points without a need": series(x=[1, 2], y=[0.5, 0.5], measured=3),
    "a claim of nobody": series(claim="c9"),
    "an error larger than the one judged": series(y=[0.5, 0.6], claim="c1"),
    "an error smaller than the one judged": series(y=[0.1, 0.4], claim="c1"),
    "a gap although what was judged is finite": series(y=[0.5, None], claim="c1"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_series_is_refused(tmp_path: Path, name: str) -> None:
    """And a well-formed one beside it is not: the refusal names the series."""
    path = write_run(tmp_path / "run.jsonl", (recorded(MALFORMED[name]),))
    with pytest.raises(refusals.InconsistentRow, match="series 'loss'"):
        read_run(path)


@pytest.mark.parametrize("judged", [series(), series(y=[0.1, 0.5], claim="c1")])
def test_a_well_formed_series_is_accepted(tmp_path: Path, judged: Body) -> None:
    """Without a claim, and with one whose observed value is its largest."""
    assert build_run(tmp_path, (recorded(judged),)).rows[0].series[0].name == "loss"


def test_names_repeat_in_no_row_and_their_number_is_bounded(tmp_path: Path) -> None:
    """Else a picture could not tell them apart, and a run could grow without end."""
    twice = row(series=[series(), series()])
    many = row(series=[series(name=f"s{i}") for i in range(MOST_SERIES + 1)])
    most = row(series=[series(name=f"s{i}") for i in range(MOST_SERIES)])
    for i, (body, words) in enumerate(((twice, "two series 'loss'"), (many, "9 series"))):
        with pytest.raises(refusals.InconsistentRow, match=words):
            read_run(write_run(tmp_path / f"{i}.jsonl", (body,)))
    assert len(build_run(tmp_path, (most,)).rows[0].series) == MOST_SERIES


def test_an_error_that_is_not_finite_agrees_with_a_gap_and_with_nothing_else(
    tmp_path: Path,
) -> None:
    """A claim that observed NaN was falsified by a value that no axis holds."""
    broken = [comparison(math.nan, slack=math.nan, margin=None)]
    gap, finite = (series(y=[0.1, last], claim="c1") for last in (None, 0.2))
    body = row("falsified", comparisons=broken, series=[gap])
    assert build_run(tmp_path, (body,)).rows[0].series[0].y == (0.1, None)
    with pytest.raises(refusals.InconsistentRow, match="observed nan"):
        read_run(write_run(tmp_path / "b.jsonl", ({**body, "series": [finite]},)))


@pytest.mark.parametrize(
    "compared",
    [
        comparison(0.5, 0.5, "=="),
        comparison(0.5, 0.1, ">="),
        comparison(0.5, 0, "<="),
        comparison("x", "x", "=="),
    ],
)
def test_only_an_upper_bound_above_zero_can_judge_a_series(tmp_path: Path, compared: Body) -> None:
    """Nothing else has units to draw an error in."""
    outcome = "held" if compared["holds"] else "falsified"
    body = row(outcome, comparisons=[compared], series=[series(y=[0.1, 0.5], claim="c1")])
    with pytest.raises(refusals.InconsistentRow, match="no finite upper one above zero"):
        read_run(write_run(tmp_path / "run.jsonl", (body,)))


@pytest.mark.parametrize(
    "change",
    [{"y": ["NaN", 0.5]}, {"x": [None, 1]}, {"name": ""}, {"measured": 0}, {"surplus": 1}],
)
def test_what_the_schema_does_not_know_is_refused(tmp_path: Path, change: Body) -> None:
    """A value that is not finite is null; a text is none of it."""
    path = write_run(tmp_path / "run.jsonl", (recorded({**series(), **change}),))
    with pytest.raises(refusals.SchemaViolation):
        read_run(path)


def test_a_point_edited_by_hand_breaks_the_chain(tmp_path: Path) -> None:
    """Points are under the digests like everything else."""
    path = write_run(tmp_path / "run.jsonl", (recorded(series()),))
    tamper(path, "row", lambda body: body["series"][0]["y"].__setitem__(0, 0.2), chained=False)
    with pytest.raises(refusals.BrokenChain):
        read_run(path)
