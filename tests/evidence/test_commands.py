"""The commands over evidence: check, report, evidence add and evidence index."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aprverify.commands import check, evidence, report
from aprverify.contract.lint import Loaded
from aprverify.evidence import verdict
from aprverify.evidence.promote import promoted_runs
from aprverify.evidence.reader import read_run
from aprverify.evidence.report import render_report

from .builder import NEWER_SHA, SHA, row, tamper, write_run


@dataclass
class Suite:
    """What the command line gives each command of the suite."""

    evidence_dir: Path
    root: Path = Path("no-checkout")
    subjects: dict[str, str] = field(default_factory=lambda: {"own": "own:Subject"})

    def subject(self, name: str) -> str:
        """Every subject is its own target."""
        return name


KEY, TEETH = "TEST-A[cpu-f32]", "TEST-A[cpu-f32]!drop-bias"


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The source ids of the present files; a test may change them."""
    ids = {KEY: SHA, TEETH: SHA}
    monkeypatch.setattr(evidence, "current_source_ids", lambda *_: dict(ids))
    monkeypatch.setattr(evidence, "load_defects", lambda _: {})
    monkeypatch.setattr(evidence, "load_suite", lambda _: Loaded())
    return ids


@pytest.fixture
def suite(tmp_path: Path, present: dict[str, str]) -> Suite:
    """A suite without evidence."""
    return Suite(tmp_path / "evidence")


def call(suite: Suite, *arguments: str | Path) -> int:
    """The exit status of one command line."""
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for command in (check, report, evidence):
        command.add_parser(subparsers)
    args = parser.parse_args([str(argument) for argument in arguments])
    args.suite = suite
    status: int = args.run(args)
    return status


def test_check_prints_the_summary_of_a_good_run(
    tmp_path: Path, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    """And exits 0."""
    path = write_run(tmp_path / "run.jsonl")
    assert call(suite, "check", path) == verdict.OK
    assert "Nothing was falsified." in capsys.readouterr().out


def test_check_exits_as_the_run_did(tmp_path: Path, suite: Suite) -> None:
    """A sound run of a wrong trainer is evidence against it."""
    path = write_run(tmp_path / "run.jsonl", (row("falsified"),))
    assert call(suite, "check", path) == verdict.FALSIFIED


@pytest.mark.parametrize("command", [("check",), ("report",), ("evidence", "add")])
def test_a_refused_run_is_refused_by_every_command(
    tmp_path: Path, suite: Suite, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """With the reason's name, and with no trace left behind."""
    path = write_run(tmp_path / "run.jsonl")
    tamper(path, "row", lambda b: b.update(outcome="falsified"))
    before = sorted(tmp_path.rglob("*"))
    assert call(suite, *command, path) == verdict.REFUSED
    assert "refused (InconsistentRow)" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_report_writes_beside_the_run_and_check_believes_it(tmp_path: Path, suite: Suite) -> None:
    """The rendered report is the one that check expects."""
    path = write_run(tmp_path / "run.jsonl")
    assert call(suite, "report", tmp_path) == verdict.OK
    assert (tmp_path / "report.md").read_text("utf-8") == render_report(read_run(path))
    assert call(suite, "check", path) == verdict.OK


def test_report_writes_where_it_is_told(
    tmp_path: Path, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    """To a file, or with - to the terminal."""
    path = write_run(tmp_path / "run.jsonl")
    assert call(suite, "report", path, "--output", tmp_path / "r.md") == verdict.OK
    capsys.readouterr()
    assert call(suite, "report", path, "--output", "-") == verdict.OK
    assert capsys.readouterr().out == (tmp_path / "r.md").read_text("utf-8")
    assert not (tmp_path / "report.md").exists()


def test_check_notices_a_report_edited_by_hand(
    tmp_path: Path, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    """A single character is enough."""
    path = write_run(tmp_path / "run.jsonl")
    call(suite, "report", path)
    edited = tmp_path / "report.md"
    edited.write_text(edited.read_text("utf-8").replace("1/1", "2/2", 1), "utf-8")
    assert call(suite, "check", path) == verdict.REFUSED
    assert "edited by hand" in capsys.readouterr().err


def test_add_copies_the_run_and_writes_the_index(tmp_path: Path, suite: Suite) -> None:
    """Byte for byte, with its report, and then the index check is content."""
    path = write_run(tmp_path / "run.jsonl")
    assert call(suite, "evidence", "add", path) == verdict.OK
    kept = suite.evidence_dir / "runs" / "run-1"
    assert (kept / "run.jsonl").read_bytes() == path.read_bytes()
    assert sorted(item.name for item in kept.parent.iterdir()) == ["run-1"]
    assert "run-1" in (suite.evidence_dir / "README.md").read_text("utf-8")
    assert call(suite, "evidence", "index", "--check") == verdict.OK


def test_add_keeps_no_run_twice(
    tmp_path: Path, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the same file nor another one of the same name."""
    path = write_run(tmp_path / "a" / "run.jsonl")
    call(suite, "evidence", "add", path)
    assert call(suite, "evidence", "add", path) == verdict.REFUSED
    assert "promoted before" in capsys.readouterr().err
    same_name = write_run(tmp_path / "b" / "run.jsonl", (row("falsified"),))
    assert call(suite, "evidence", "add", same_name) == verdict.REFUSED


def test_add_takes_a_run_that_falsifies(tmp_path: Path, suite: Suite) -> None:
    """Bad news is evidence too."""
    path = write_run(tmp_path / "run.jsonl", (row("falsified"),))
    assert call(suite, "evidence", "add", path) == verdict.OK


def test_add_refuses_what_shows_nothing(
    tmp_path: Path, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted run, one in which nothing ran, and a name that leaves its folder."""
    interrupted = write_run(tmp_path / "a" / "run.jsonl", interrupted=True)
    idle = write_run(tmp_path / "b" / "run.jsonl", (row("not_run"),))
    outside = write_run(tmp_path / "c" / "run.jsonl", run_id="../outside")
    for path in (interrupted, idle, outside):
        assert call(suite, "evidence", "add", path) == verdict.REFUSED
        assert "refused (NotPromoted)" in capsys.readouterr().err
    assert not (suite.evidence_dir / "runs").exists()


def test_an_interrupted_run_is_kept_where_that_was_asked_for(tmp_path: Path, suite: Suite) -> None:
    """What it has is kept as it is, and it goes on saying that it was interrupted."""
    path = write_run(tmp_path / "run.jsonl", interrupted=True)
    assert call(suite, "evidence", "add", path, "--interrupted") == verdict.OK
    (kept,) = promoted_runs(suite.evidence_dir)
    assert kept.footer.interrupted and kept.sha256 == read_run(path).sha256


@pytest.mark.parametrize("change", [{KEY: NEWER_SHA}, {KEY: ""}])
def test_add_refuses_a_run_about_other_files(
    tmp_path: Path,
    suite: Suite,
    capsys: pytest.CaptureFixture[str],
    present: dict[str, str],
    change: dict[str, str],
) -> None:
    """It would be stale on the day it is kept."""
    path = write_run(tmp_path / "run.jsonl")
    present.update(change)
    assert call(suite, "evidence", "add", path) == verdict.REFUSED
    said = capsys.readouterr().err
    assert f"1 of 2 rows are not about the present files, as {KEY}. Run it again." in said
    assert not (suite.evidence_dir / "runs").exists()


def test_index_counts_the_age_of_each_subject_apart(
    tmp_path: Path,
    suite: Suite,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of one trainer are not held against the files of another."""
    ids = {"own": {KEY: SHA, TEETH: SHA}, "other": {KEY: NEWER_SHA, TEETH: NEWER_SHA}}
    monkeypatch.setattr(evidence, "current_source_ids", lambda _, __, subject, ___: ids[subject])
    other = (row(source_id=NEWER_SHA), row("caught", defect="drop-bias", source_id=NEWER_SHA))
    runs = {"own": (row(), row("caught", defect="drop-bias")), "other": other}
    for subject, rows in runs.items():
        path = write_run(tmp_path / subject / "run.jsonl", rows, run_id=subject, subject=subject)
        assert call(suite, "evidence", "add", path) == verdict.OK
    capsys.readouterr()
    assert call(suite, "evidence", "index") == verdict.OK
    assert "As of now 0 rows are stale, and 0 entries have no row." in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["README.md", "runs/run-1/report.md"])
def test_index_check_notices_every_edit(tmp_path: Path, suite: Suite, damage: str) -> None:
    """Of the index and of a promoted report, also when the file is gone."""
    call(suite, "evidence", "add", write_run(tmp_path / "run.jsonl"))
    file = suite.evidence_dir / damage
    file.write_bytes(file.read_bytes() + b"\n")
    assert call(suite, "evidence", "index", "--check") == verdict.REFUSED
    file.unlink()
    assert call(suite, "evidence", "index", "--check") == verdict.REFUSED


def test_index_refuses_a_damaged_promoted_run(tmp_path: Path, suite: Suite) -> None:
    """It is not left out in silence."""
    call(suite, "evidence", "add", write_run(tmp_path / "run.jsonl"))
    (suite.evidence_dir / "runs" / "run-1" / "run.jsonl").write_bytes(b"")
    assert call(suite, "evidence", "index") == verdict.REFUSED


def test_index_says_how_old_the_evidence_is(
    tmp_path: Path,
    suite: Suite,
    capsys: pytest.CaptureFixture[str],
    present: dict[str, str],
) -> None:
    """On the terminal only: the committed file must not change with every edit of the sources."""
    call(suite, "evidence", "add", write_run(tmp_path / "run.jsonl"))
    before = (suite.evidence_dir / "README.md").read_bytes()
    present.update({KEY: NEWER_SHA, "TEST-B[x]": SHA})
    assert call(suite, "evidence", "index") == verdict.OK
    assert "1 row is stale, and 1 entry has no row" in capsys.readouterr().out
    assert (suite.evidence_dir / "README.md").read_bytes() == before
