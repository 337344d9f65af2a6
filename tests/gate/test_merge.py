"""Merging lanes and shards: one run that the reader accepts, and nothing lost in silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aprverify.evidence.records import Run
from tests.conftest import Toy

from .conftest import CPU_KEY, CUDA_KEY, TEETH_KEY, Call, declare, forget_files, policy
from .evidence import read, write_run

Out = pytest.CaptureFixture[str]
DEFECTS = ("one-more", "one-less")
CPU_LANE = [CPU_KEY, *(f"{CPU_KEY}!{defect}" for defect in DEFECTS)]
CUDA_LANE = [CUDA_KEY, *(f"{CUDA_KEY}!{defect}" for defect in DEFECTS)]
LATER = "2026-01-03T08:00:00.000000Z"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "merged"


def lanes(toy: Toy, outcomes: Mapping[str, str] | None = None, **header: Any) -> tuple[Path, Path]:
    """A CPU lane and, a day later, a CUDA lane."""
    return (
        write_run(toy, "cpu", outcomes, only=CPU_LANE, **header),
        write_run(toy, "cuda", outcomes, only=CUDA_LANE, started=LATER, **header),
    )


def outcomes(run: Run) -> dict[str, str]:
    """By key."""
    return {row.key: row.outcome for row in run.rows}


def test_lanes_become_one_run(declared: Toy, join: Call, judge: Call, out: Path) -> None:
    """Which the reader accepts, the gate takes, and which claims to be complete."""
    assert join(*lanes(declared), "--out", out) == 0
    merged = read(out)
    assert outcomes(merged).keys() == {*CPU_LANE, *CUDA_LANE}
    assert merged.header.selection.complete and merged.header.selection.lane == "all"
    assert (merged.header.run_id, len(merged.environments)) == ("merged", 2)
    assert (out / "report.md").exists()
    assert judge(out) == 0


def test_a_merged_run_is_a_function_of_its_parts(declared: Toy, join: Call, tmp_path: Path) -> None:
    """Byte for byte, whatever their order, however often, and with a merged one among them."""
    one, two = lanes(declared)
    made = []
    for n, runs in enumerate([(one, two), (two, one), (one, two, one)]):
        folder = tmp_path / str(n) / "merged"
        assert join(*runs, "--out", folder) == 0
        made.append((folder / "run.jsonl").read_bytes())
    assert made[0] == made[1] == made[2]
    again = tmp_path / "again"
    assert join(tmp_path / "0" / "merged", one, "--out", again) == 0
    assert outcomes(read(again)) == outcomes(read(tmp_path / "0" / "merged"))


def test_the_parts_stay_as_they_are_and_are_named(declared: Toy, join: Call, out: Path) -> None:
    """By run id and hash, so that anybody can look at them."""
    runs = lanes(declared)
    before = [(run / "run.jsonl").read_bytes() for run in runs]
    join(*runs, "--out", out)
    assert [(run / "run.jsonl").read_bytes() for run in runs] == before
    named = [f"{r.header.run_id}@sha256:{r.sha256}" for r in map(read, runs)]
    assert list(read(out).header.command) == ["aprverify", "merge", *named]


def test_a_run_given_twice_counts_once(declared: Toy, join: Call, out: Path, capsys: Out) -> None:
    """And that is said."""
    one, two = lanes(declared)
    assert join(one, two, one, "--out", out) == 0
    assert "run cpu was given twice; it counts once" in capsys.readouterr().err


def test_gaps_are_named(declared: Toy, join: Call, out: Path, capsys: Out) -> None:
    """Each planned entry that no run has a row of; the run does not claim to be complete."""
    one, _ = lanes(declared)
    assert join(one, "--out", out) == 0
    said = capsys.readouterr().err
    assert "3 planned entries have no row:" in said
    assert all(f"  {key}\n" in said for key in CUDA_LANE)
    assert not read(out).header.selection.complete


def test_gaps_are_named_where_the_contracts_are_others(
    declared: Toy, join: Call, out: Path, capsys: Out
) -> None:
    """From what the runs themselves declare; nobody can be sure that nothing else is missing."""
    runs = lanes(declared)
    declare(declared, claims=[{"id": "other", "expr": "x >= 3", "why": "one and two"}])
    assert join(runs[0], "--out", out) == 0
    assert f"no row of {CUDA_KEY}" in capsys.readouterr().err
    whole = out.with_name("whole")
    assert join(*runs, "--out", whole) == 0
    assert not read(whole).header.selection.complete


@pytest.mark.parametrize("first", ["held", "falsified"])
def test_a_failure_is_not_merged_away(
    declared: Toy, join: Call, judge: Call, out: Path, capsys: Out, first: str
) -> None:
    """The worse verdict is kept, whichever is newer, and the conflict is named."""
    then = {"held": "falsified", "falsified": "held"}[first]
    one = write_run(declared, "a", {CPU_KEY: first})
    two = write_run(declared, "b", {CPU_KEY: then}, started=LATER)
    assert join(one, two, "--out", out) == 9
    assert f"conflict: {CPU_KEY}: falsified and held" in capsys.readouterr().err
    assert outcomes(read(out))[CPU_KEY] == "falsified"
    assert judge(out) == 1


def test_a_survivor_is_not_merged_away(declared: Toy, join: Call, out: Path) -> None:
    """Nor a defect that was not noticed once."""
    runs = [write_run(declared, "a", {TEETH_KEY: "survived"}), write_run(declared, "b")]
    assert join(*runs, "--out", out) == 9
    assert outcomes(read(out))[TEETH_KEY] == "survived"


def test_what_did_not_run_yields_to_what_did(declared: Toy, join: Call, out: Path) -> None:
    """Even where it is newer: a machine without the device says nothing."""
    one = write_run(declared, "a")
    idle = dict.fromkeys(CUDA_LANE, "not_run")
    two = write_run(declared, "b", idle, started=LATER)
    assert join(two, one, "--out", out) == 0
    assert outcomes(read(out))[CUDA_KEY] == "held"


def test_rows_come_in_the_order_of_the_contract(declared: Toy, join: Call, out: Path) -> None:
    """Clean cases first, then defect by defect."""
    join(*lanes(declared)[::-1], "--out", out)
    clean, teeth = [CPU_KEY, CUDA_KEY], [f"{k}!{d}" for d in DEFECTS for k in (CPU_KEY, CUDA_KEY)]
    assert [row.key for row in read(out).rows] == clean + teeth


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"subject": "other"}, "another subject, toy and other"),
        ({"suite": "theirs"}, "another suite, toy and theirs"),
        (
            {
                "source": {
                    "commit": None,
                    "dirty": None,
                    "aprverify_version": "0.2.0",
                    "aprverify_sha256": "a" * 64,
                }
            },
            "another version of aprverify",
        ),
    ],
)
def test_runs_that_do_not_belong_together_are_not_merged(
    declared: Toy, join: Call, out: Path, capsys: Out, header: dict[str, Any], said: str
) -> None:
    """One header could not tell the truth about both."""
    one = write_run(declared, "a", only=CPU_LANE)
    two = write_run(declared, "b", only=CUDA_LANE, started=LATER, **header)
    assert join(one, two, "--out", out) == 2
    assert said in capsys.readouterr().err
    assert not out.exists() and not list(out.parent.glob(".merging*"))


def test_runs_of_two_versions_of_a_file_are_not_merged(
    declared: Toy, join: Call, out: Path, capsys: Out
) -> None:
    """By source_id, entry by entry; and contracts have to read alike."""
    one = write_run(declared, "a")
    path = declared.root / "toytrainer/constants.py"
    path.write_text(path.read_text() + "# later\n")
    forget_files()
    two = write_run(declared, "b", started=LATER)
    assert join(one, two, "--out", out) == 2
    assert f"{CPU_KEY} is about different files" in capsys.readouterr().err
    declare(declared, if_fails="Ask somebody who can count.")
    assert join(one, write_run(declared, "c", only=CUDA_LANE), "--out", out) == 2
    assert "C-TOY reads differently" in capsys.readouterr().err


def test_nothing_is_overwritten(declared: Toy, join: Call, out: Path) -> None:
    """Not even an empty folder."""
    out.mkdir()
    assert join(*lanes(declared), "--out", out) == 2
    assert list(out.iterdir()) == []


def test_a_refused_run_is_not_merged(declared: Toy, join: Call, out: Path) -> None:
    """And leaves nothing behind."""
    one, two = lanes(declared)
    (two / "run.jsonl").write_text((two / "run.jsonl").read_text()[:-20])
    assert join(one, two, "--out", out) == 7
    assert not out.exists()


def test_the_gate_says_the_same_of_the_parts_and_of_the_whole(
    declared: Toy, join: Call, judge: Call, tmp_path: Path
) -> None:
    """Whatever happened in them."""
    policy(declared, required=["all"])
    for n, bad in enumerate(["falsified", "broken", "not_run"]):
        one = write_run(declared, f"cpu-{n}", {CPU_KEY: bad}, only=CPU_LANE)
        two = write_run(declared, f"cuda-{n}", only=CUDA_LANE, started=LATER)
        merged = tmp_path / f"merged-{n}"
        assert join(one, two, "--out", merged) == 0
        assert judge(merged) == judge(one, two) != 0
