"""``aprverify report`` and ``aprverify show``: what is written where, and what is printed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aprverify.commands import check, report, show
from aprverify.contract.lint import Loaded
from aprverify.evidence import verdict
from aprverify.evidence.merge import merge_runs
from aprverify.evidence.records import contract_from
from aprverify.views.show import render_show
from tests.evidence.builder import NEWER_SHA, build_run, row, tamper

from .runs import declared, mixed

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Suite:
    """What the command line gives each command of the suite."""

    evidence_dir: Path
    root: Path = ROOT
    subjects: dict[str, str] = field(default_factory=lambda: {"bundled": "own:Subject"})
    default_subject: str = "bundled"

    def subject(self, name: str) -> str:
        """Every subject is its own target."""
        return name


def call(folder: Path, *arguments: str | Path) -> int:
    """The exit status of one command line."""
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for command in (check, report, show):
        command.add_parser(subparsers)
    args = parser.parse_args([str(argument) for argument in arguments])
    args.suite = Suite(folder / "evidence")
    status: int = args.run(args)
    return status


def test_report_leaves_the_report_with_every_picture_that_it_shows(tmp_path: Path) -> None:
    """And check believes them; a changed picture it does not."""
    mixed(tmp_path)
    assert call(tmp_path, "report", tmp_path) == verdict.OK
    text = (tmp_path / "report.md").read_text("utf-8")
    linked = {name for name in ("margins.svg", "teeth.svg", "curves.svg") if f"({name})" in text}
    assert linked == {path.name for path in tmp_path.glob("*.svg")} == {"margins.svg", "teeth.svg"}
    assert call(tmp_path, "check", tmp_path) == verdict.FALSIFIED
    picture = tmp_path / "teeth.svg"
    picture.write_text(picture.read_text("utf-8").replace(": survived", ": caught"), "utf-8")
    assert call(tmp_path, "check", tmp_path) == verdict.REFUSED


def test_each_view_is_written_where_it_is_asked_for_and_nothing_else(tmp_path: Path) -> None:
    """The report is not, unless it is asked for too."""
    mixed(tmp_path / "run")
    out = tmp_path / "out"
    out.mkdir()
    names = {"--junit": "j.xml", "--in-toto": "i.json", "--job-summary": "s.md", "--html": "h.html"}
    flags = [text for flag, name in names.items() for text in (flag, str(out / name))]
    assert call(tmp_path, "report", tmp_path / "run", *flags) == verdict.OK
    assert sorted(path.name for path in out.iterdir()) == sorted(names.values())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.jsonl"]
    ET.parse(out / "j.xml")
    json.loads((out / "i.json").read_text("utf-8"))


def test_annotations_are_all_that_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runner reads the output; names of files written beside go elsewhere."""
    mixed(tmp_path)
    junit = tmp_path / "j.xml"
    assert call(tmp_path, "report", tmp_path, "--annotations", "--junit", junit) == verdict.OK
    said = capsys.readouterr()
    assert said.out.splitlines() and all(x.startswith("::error ") for x in said.out.splitlines())
    assert str(junit) in said.err


def test_what_changed_is_told_of_an_earlier_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only where it does not displace the report that check compares with."""
    rows = (row("falsified"), row("caught", defect="drop-bias"))
    build_run(tmp_path / "new", rows, run_id="new")
    build_run(tmp_path / "old", run_id="old")
    new, old = tmp_path / "new", tmp_path / "old"
    assert call(tmp_path, "report", new, "--since", old) == 2
    assert "--output" in capsys.readouterr().err
    assert call(tmp_path, "report", new, "--since", old, "--output", "-") == verdict.OK
    text = capsys.readouterr().out
    assert (
        "Worse: 1 new failure; 0 still failing, 0 fixed, 1 gate changed status "
        "(1 for the worse), 1 value nearer to the bound. Compared with `old`."
    ) in text
    assert "| GATE-A | DISCHARGED | FALSIFIED |" in text
    assert "### New failures: 1" in text
    assert "| `TEST-A[cpu-f32]` | held → falsified |" in text


def test_the_same_run_changed_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a value that came much nearer to its bound is told."""
    for name, observed in (("a", 0.4), ("b", 0.9)):
        build_run(tmp_path / name, (row(observed=observed),), run_id=name)
    a, b = tmp_path / "a", tmp_path / "b"
    call(tmp_path, "report", a, "--since", a, "--output", "-")
    assert (
        "Nothing became worse: 0 still failing, 0 fixed. Compared with `a`."
        in capsys.readouterr().out
    )
    call(tmp_path, "report", b, "--since", a, "--output", "-")
    said = capsys.readouterr().out
    assert "0 fixed, 1 value nearer to the bound." in said
    assert "40.0% → 90.0%" in said


def test_show_says_what_is_claimed_and_what_was_last_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Claims, cases, falsifier, status, where, when, margins and teeth."""
    mixed(tmp_path)
    for identity in ("TEST-A", "GATE-A", "INV-A", "C-A"):
        assert call(tmp_path, "show", identity, "--run", tmp_path) == verdict.OK
        text = " ".join(capsys.readouterr().out.split())
        for fact in (
            "gate GATE-A: FALSIFIED, teeth 1/2, blocks shipping",
            "TEST-A (contracts/a.yaml:7)",
            "falsifier falsifiers.eval:falsify_eval",
            "claim c1: loss <= bound",
            "case cpu-f32 (reduced) held; 2026-01-02, 1 × Some GPU, run-1",
            "case cuda-bf16 (full) falsified; 2026-01-02",
            "margin left +0.0123 of the tolerance: c1, 0.9877 <= 1 nats, cpu-f32",
            "must catch drop-bias: caught on cpu",
            "must catch eps: not run on cuda, survived on cpu",
            "run pytest -k TEST-A",
        ):
            assert fact in text


def test_show_tells_stale_evidence_and_none_apart(tmp_path: Path) -> None:
    """A test that changed since, and one that never ran."""
    run = build_run(tmp_path, (row(), row("caught", defect="drop-bias")))
    key = "TEST-A[cpu-f32]"
    contracts = (contract_from(declared()),)
    text = render_show("TEST-A", contracts, merge_runs([run], {key: NEWER_SHA}))
    assert "held, STALE: its files changed since" in text
    assert text.count("never run") == 2
    assert "must catch      eps: never planted" in text
    assert "drop-bias: caught on cpu (stale)" in text


def test_show_helps_with_an_id_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error, with what was perhaps meant; and a refused run is refused."""
    run = mixed(tmp_path)
    assert call(tmp_path, "show", "TEST-B", "--run", tmp_path) == 2
    assert "did you mean TEST-A" in capsys.readouterr().err
    tamper(run.path, "row", lambda body: body.update(outcome="falsified"))
    assert call(tmp_path, "show", "TEST-A", "--run", tmp_path) == verdict.REFUSED


def test_show_without_a_run_takes_the_present_contracts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None here, so nothing is known."""
    monkeypatch.setattr(show, "load_suite", lambda _: Loaded())
    monkeypatch.setattr(show, "load_defects", lambda _: {})
    monkeypatch.setattr(show, "current_source_ids", lambda *_: {})
    assert call(tmp_path, "show", "TEST-A") == 2
    assert "no contract declares TEST-A" in capsys.readouterr().err


def test_the_page_on_schemas_holds_a_program_that_validates(tmp_path: Path) -> None:
    """The program as printed there accepts a run and names the line that does not fit."""
    page = (ROOT / "aprverify" / "schemas" / "README.md").read_text("utf-8")
    program = tmp_path / "validate.py"
    program.write_text(page.partition("```python\n")[2].partition("```")[0], "utf-8")
    schema = ROOT / "aprverify" / "schemas" / "run.schema.json"
    run = mixed(tmp_path)

    def validated() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(program), str(schema), str(run.path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert (validated().returncode, validated().stdout) == (0, "every line fits the schema\n")
    line = tamper(run.path, "row", lambda body: body.update(seconds="long"))
    done = validated()
    assert done.returncode == 1 and f"line {line}, $.seconds: " in done.stderr
