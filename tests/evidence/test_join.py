"""Joining: lanes become one run, or stay as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from aprverify.evidence.join import join_lanes
from aprverify.evidence.reader import read_run

from .builder import build_run, row


def test_joined_lanes_are_one_sound_run(tmp_path: Path) -> None:
    """With every row, under the folder's name, and the lanes' folders gone."""
    lanes = [
        build_run(tmp_path / "lane-cpu", (row(),)),
        build_run(tmp_path / "lane-cuda", (row("caught", defect="drop-bias"),)),
    ]
    join_lanes(lanes, tmp_path, ["aprverify", "verify"])
    joined = read_run(tmp_path)
    assert [r.outcome for r in joined.rows] == ["held", "caught"]
    assert (joined.header.run_id, joined.header.planned) == (tmp_path.name, 2)
    assert [item.name for item in tmp_path.iterdir()] == ["run.jsonl"]


def test_a_joining_that_fails_leaves_the_lanes_and_nothing_else(tmp_path: Path) -> None:
    """Half a run.jsonl would look like a run that was cut off."""
    lanes = [build_run(tmp_path / name, (row(),)) for name in ("lane-cpu", "lane-cuda")]
    with pytest.raises(ValueError, match="a second row for"):
        join_lanes(lanes, tmp_path, [])
    assert sorted(item.name for item in tmp_path.iterdir()) == ["lane-cpu", "lane-cuda"]
    assert [read_run(lane.path) for lane in lanes] == lanes


def test_joining_never_removes_a_run_that_was_there(tmp_path: Path) -> None:
    """Nor writes over it."""
    before = build_run(tmp_path).path.read_bytes()
    lane = build_run(tmp_path / "lane-cpu")
    with pytest.raises(FileExistsError):
        join_lanes([lane], tmp_path, [])
    assert (tmp_path / "run.jsonl").read_bytes() == before
