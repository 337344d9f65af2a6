"""Entries left out for their cost: by committed runs alone, counted, and never green."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aprverify.evidence import verdict
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import TooDear
from aprverify.evidence.status import Status, gate_statuses
from aprverify.too_dear import dear_entries, read_dear_entries

from .conftest import Toy, contract, falsification
from .evidence.builder import build_run, row

_FALSIFIER = """
def falsify_sum(subject, case, measured):
    measured(x=subject.total([1, 2]))
"""
_COSTS = """
from types import SimpleNamespace
from aprverify.commands import verify
rows = [SimpleNamespace(key=k, outcome="held", defect=None, seconds=s) for k, s in {pairs}.items()]
verify.promoted_runs = lambda folder: [SimpleNamespace(rows=rows)]
"""
_MAIN = """
import sys
from aprverify import cli
sys.exit(cli.main(["--suite", "toy", *sys.argv[1:]]))
"""
_TEST = "FALSIFY-TOY-001"


@pytest.fixture
def project(toy: Toy) -> Toy:
    """A claim under two cases."""
    cases = [{"scale": "reduced", "matrix": {"device": ["cpu"], "size": [1, 2]}}]
    test = falsification(_TEST, "falsify_toy.falsify_sum", invariants=["INV-TOY-001"], cases=cases)
    toy.contract(contract(falsification_tests=[test]))
    toy.write({"toysuite/falsify_toy.py": _FALSIFIER})
    return toy


def _verify(project: Toy, *arguments: str, **took: float) -> tuple[int, str]:
    """The command's status and errors; committed runs say that each size took so long."""
    pairs = {f"{_TEST}[device=cpu,size={name[1:]}]": seconds for name, seconds in took.items()}
    patch = _COSTS.format(pairs=pairs) if pairs else ""
    words = ["verify", "--run-dir", "run", "-n", "1", "--teeth", "none", *arguments]
    done = project.process("-c", patch + _MAIN, *words)
    return done.returncode, done.stderr


def test_what_took_longer_is_left_out_and_the_report_begins_with_it(project: Toy) -> None:
    """The rest runs; the run is not complete, nor the gate discharged."""
    assert _verify(project, "--dearest", "15", s1=20.0, s2=3.0) == (verdict.OK, "")
    run = read_run(project.root / "run")
    assert [r.key for r in run.rows] == [f"{_TEST}[device=cpu,size=2]"]
    assert run.header.selection.too_dear == TooDear(15, 1)
    assert not run.header.selection.complete
    report = (project.root / "run" / "report.md").read_text()
    said = "1 entry left out for its cost (by committed runs over 15 s, or planted under a claim"
    assert said in report.splitlines()[0]
    assert "not asked for" not in report.splitlines()[0]
    assert "up to 15 s an entry" in report
    (gate,) = gate_statuses(run.contracts, run.rows)
    assert gate.status is not Status.DISCHARGED
    assert run.header.command[-1] == "--dearest=15"
    assert not (project.root / "run" / "too-dear.json").exists()


def test_where_nothing_is_too_dear_the_run_is_complete(project: Toy) -> None:
    """What no committed run has tried costs nothing that is known, and runs."""
    assert _verify(project, "--dearest", "15", s1=15.0) == (verdict.OK, "")
    run = read_run(project.root / "run")
    assert (len(run.rows), run.header.selection.complete) == (2, True)
    assert run.header.selection.too_dear is None


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "dear"])
def test_a_limit_that_is_none_is_refused(project: Toy, given: str) -> None:
    """Before anything runs."""
    status, errors = _verify(project, "--dearest", given)
    assert status == 2
    assert f"--dearest: {given} " in errors
    assert not (project.root / "run").exists()


def test_a_damaged_committed_run_is_named(project: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    """Costs that nobody can read select nothing, and nothing is run without them."""
    folder = project.root / "evidence" / "runs" / "old"
    folder.mkdir(parents=True)
    (folder / "run.jsonl").write_text("{}\n")
    status, errors = _verify(project, "--dearest", "15")
    assert status == verdict.REFUSED
    assert "--dearest: a committed run is refused" in errors
    assert not (project.root / "run").exists()


def test_the_least_time_of_a_verdict_counts(tmp_path: Path) -> None:
    """The first of a process pays for imports; what never came to a verdict has no time."""

    def run(name: str, **changes: Any) -> Any:
        return build_run(tmp_path / name, (row(**changes),))

    slow, quick = run("a", seconds=40.0), run("b", seconds=2.0)
    broken = run("c", outcome="broken", seconds=90.0)
    key = slow.rows[0].key
    assert dear_entries([slow, broken], 15.0).keys == {key}
    assert dear_entries([slow, quick], 15.0).keys == frozenset()
    assert dear_entries([broken], 15.0).keys == frozenset()
    planted = run("d", outcome="caught", defect="drop-bias", seconds=1.0)
    assert dear_entries([slow, planted], 15.0).keys == {key, f"{key}!drop-bias"}
    assert dear_entries([quick, planted], 15.0).keys == frozenset()
    assert dear_entries([run("e", outcome="falsified", seconds=30.0)], 15.0).keys == {key}
    dear = dear_entries([slow], 15.0)
    dear.write(tmp_path / "file")
    assert read_dear_entries(tmp_path / "file") == dear
    assert dear.among(["another"]) is None


def test_a_lane_of_which_nothing_is_left_is_counted_too(project: Toy) -> None:
    """It has no run of its own; the others are then not everything."""
    cases = [{"scale": "reduced", "matrix": {"device": ["cpu", "cuda"], "size": [1]}}]
    test = falsification(_TEST, "falsify_toy.falsify_sum", invariants=["INV-TOY-001"], cases=cases)
    project.contract(contract(falsification_tests=[test]))
    gpu = "verify.visible_gpus = lambda: [None]\n"
    patch = _COSTS.format(pairs={f"{_TEST}[device=cuda,size=1]": 20.0}) + gpu
    words = ["verify", "--run-dir", "run", "-n", "1", "--teeth", "none", "--dearest", "15"]
    done = project.process("-c", patch + _MAIN, *words)
    assert (done.returncode, done.stderr) == (verdict.OK, "")
    run = read_run(project.root / "run")
    assert [r.key for r in run.rows] == [f"{_TEST}[device=cpu,size=1]"]
    assert run.header.selection.too_dear == TooDear(15, 1)
    assert not run.header.selection.complete


def test_where_everything_is_too_dear_the_command_says_so(project: Toy) -> None:
    """And leaves no folder."""
    status, errors = _verify(project, "--dearest", "15", "--lane", "cpu", s1=20.0, s2=20.0)
    assert (status, errors) == (2, "aprverify: no entry is left of --lane cpu, --dearest 15\n")
    assert not (project.root / "run").exists()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"seconds": 1}', '{"seconds": [], "keys": []}'])
def test_a_list_that_nobody_can_read_is_named(project: Toy, text: str | None) -> None:
    """In one line, as what a person typed."""
    if text is not None:
        project.write({"list": text})
    done = project.pytest("--too-dear", "list")
    assert done.returncode == 4
    (said,) = done.stderr.strip().splitlines()
    assert said.startswith("ERROR: --too-dear list: no list of entries (")
