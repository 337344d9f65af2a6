"""``aprverify teeth`` on a toy suite: what is crossed, what becomes of it, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aprverify.evidence import verdict
from aprverify.evidence.crosses import Column, Cross
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from aprverify.matrix.reach import replaced, watched
from aprverify.matrix.selection import columns_of, fitting
from aprverify.matrix.steps import CountingSubject, Steps
from aprverify.planting import SOURCE, Plant, defect
from tests.conftest import Toy, build_toy, contract, falsification

_FALSIFIERS = """
import subprocess, sys

def falsify_sum(subject, case, measured):
    measured(x=subject.total([1, 2]))

def falsify_name(subject, case, measured):
    measured(x=3 if subject.name == "toy" else 4)

def falsify_elsewhere(subject, case, measured):
    subprocess.run([sys.executable, "-c", ""], check=True)
    measured(x=subject.total([1, 2]))
"""
_DEFECTS = """
import os
from aprverify.planting import PROTOCOL, SOURCE, defect

def _declare(id, kind=PROTOCOL):
    return defect(id, kind=kind, imitates="nothing", symptom="other names", hidden="who looks?")

class _Renamed:
    def __init__(self, inner, plant):
        self.inner, self.plant = inner, plant

    @property
    def name(self):
        self.plant.effect(True)
        return "another"

    def total(self, values):
        return self.inner.total(values)

@_declare("renamed")
def renamed(plant):
    plant.wrap_subject(lambda subject: _Renamed(subject, plant))

class _Worse(_Renamed):
    def total(self, values):
        CRASH

@_declare("worse")
def worse(plant):
    plant.wrap_subject(lambda subject: _Worse(subject, plant))
"""
_CRASH = "os.kill(os.getpid(), 9)"
_LEAVING = "from toytrainer import core; core.LEFT.append(1); return 3"


def _toy(root: Path, crash: str = "return self.inner.total(values)") -> Toy:
    """Two contracts that declare a defect each, and a falsifier that starts a process."""
    toy = build_toy(root)
    toy.write({"toysuite/falsify_toy.py": _FALSIFIERS})
    toy.write({"toysuite/defects/names.py": _DEFECTS.replace("CRASH", crash)})
    sums = [
        falsification("FALSIFY-TOY-001", "falsify_toy.falsify_sum", invariants=["INV-TOY-001"]),
        falsification(
            "FALSIFY-TOY-002", "falsify_toy.falsify_elsewhere", invariants=["INV-TOY-001"]
        ),
    ]
    toy.contract(contract(falsification_tests=sums))
    names = falsification(
        "FALSIFY-NAME-001",
        "falsify_toy.falsify_name",
        invariants=["INV-NAME"],
        counter_examples=[{"defect": "renamed"}, {"defect": "worse"}],
    )
    gate = {
        "id": "GATE-NAME",
        "rule": "names are kept",
        "binds": ["INV-NAME"],
        "ship_blocking": True,
    }
    body = contract(
        "C-NAME",
        invariants=[{"id": "INV-NAME", "rule": "names are kept"}],
        gates=[gate],
        falsification_tests=[names],
    )
    toy.contract(body, "names.yaml")
    return toy


def _teeth(toy: Toy, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Run]:
    place = toy.root / "matrix"
    command = ("-m", "aprverify", "--suite", "toy", "teeth", "-n", "1", "--run-dir", str(place))
    done = toy.process(*command, *arguments)
    assert (place / "run.jsonl").exists(), done.stdout + done.stderr
    return done, read_run(place)


def _by_pair(run: Run) -> dict[tuple[str, str], Cross]:
    assert run.matrix is not None
    columns = run.matrix.columns
    return {(c.defect, columns[c.column].test): c for c in run.matrix.crosses}


def test_all_defects_meet_all_cheap_falsifiers(tmp_path: Path) -> None:
    """Caught where they are declared, unreached elsewhere; what starts processes is no column."""
    done, run = _teeth(_toy(tmp_path / "p"))
    assert done.returncode == verdict.OK, done.stdout + done.stderr
    assert run.matrix is not None and not run.matrix.untried
    assert "every rule of the matrix is met" in done.stdout
    outcomes = {pair: cross.outcome for pair, cross in _by_pair(run).items()}
    sums, names = "FALSIFY-TOY-001", "FALSIFY-NAME-001"
    assert outcomes == {
        **{(defect, sums): "killed" for defect in ("one-more", "one-less")},
        **{(defect, names): "killed" for defect in ("renamed", "worse")},
        ("one-less", names): "unreached",
        ("one-more", names): "broken",  # what it wraps the subject in has no name
        **{(defect, sums): "unreached" for defect in ("renamed", "worse")},
    }
    assert _by_pair(run)["one-more", sums].steps == 0
    assert run.matrix.left_out["FALSIFY-TOY-002"].startswith(("starts processes", "takes"))
    assert (tmp_path / "p" / "matrix" / "matrix.svg").exists()
    assert not (tmp_path / "p" / "matrix" / "declared").exists()
    again, full = _reused(Toy(tmp_path / "p"), "--full")
    assert again.returncode == verdict.OK, again.stderr
    assert _by_pair(full)["one-less", "FALSIFY-TOY-002"].outcome == "killed"
    assert "pairs to plant" in again.stdout and full.matrix is not None and full.matrix.full
    assert full.rows == run.rows


def _reused(toy: Toy, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Run]:
    place = toy.root / "again"
    command = ("-m", "aprverify", "--suite", "toy", "teeth", "-n", "1", "--run-dir", str(place))
    done = toy.process(*command, "--reuse", str(toy.root / "matrix"), *arguments)
    return done, read_run(place)


def test_a_defect_that_kills_its_process_breaks_that_pair_alone(tmp_path: Path) -> None:
    """The rest of its lot, and the other defects, go on in another process."""
    done, run = _teeth(_toy(tmp_path / "p", _CRASH))
    found = _by_pair(run)
    assert found["worse", "FALSIFY-TOY-001"].outcome == "broken"
    assert "died" in found["worse", "FALSIFY-TOY-001"].detail
    assert found["worse", "FALSIFY-NAME-001"].outcome == "killed"
    assert run.matrix is not None and not run.matrix.untried
    assert done.returncode == verdict.OK


def test_a_defect_that_leaves_something_behind_fails(tmp_path: Path) -> None:
    """And what was tried with it counts for nothing."""
    done, run = _teeth(_toy(tmp_path / "p", _LEAVING))
    assert run.matrix is not None and run.matrix.wrong == ("worse",)
    assert done.returncode == verdict.BROKEN
    assert "LEFT BEHIND worse" in done.stdout


def test_no_time_tries_nothing_and_says_so(tmp_path: Path) -> None:
    """A matrix that is cut short never reads as a whole one."""
    done, run = _teeth(_toy(tmp_path / "p"), "--budget", "0.001")
    assert run.matrix is not None
    assert run.matrix.untried and f"{run.matrix.untried} pairs were not tried" in done.stdout


def _columns(*seconds: float) -> list[Column]:
    return [Column(f"T-{i}", "case", each) for i, each in enumerate(seconds)]


@pytest.mark.parametrize(
    ("time", "kept"),
    [(100.0, "T-0 T-1 T-2"), (7.0, "T-0 T-2"), (2.0, "T-0 T-2"), (1.0, "T-2"), (0.0, "")],
)
def test_where_time_is_short_the_dearest_columns_are_left_out(time: float, kept: str) -> None:
    """Whole columns, by what their pairs take that are planted; the others keep their order."""
    columns = _columns(0.05, 0.09, 0.01)
    never = {f"defect-{i}": {columns[0].key} for i in range(40)}
    # Of 60 defects, 20 meet the first column: (0.05 + 0.004) · 20 = 1.1 s; then 5.6 s and 0.84 s.
    assert " ".join(c.test for c in fitting(columns, never, 60, time)) == kept


@pytest.mark.parametrize(
    ("device", "why"),
    [("cpu", "has no row among the declared pairs"), ("cuda", "has no case on this device")],
)
def test_a_reused_run_of_a_part_does_not_say_that_a_case_is_missing(device: str, why: str) -> None:
    """The falsifier has one: it was left out of that run, for its cost or by its lane."""
    test = SimpleNamespace(id="TEST-A", cases=[SimpleNamespace(device="cpu")])
    contracts = [SimpleNamespace(tests=[test])]
    state: Any = SimpleNamespace(loaded=SimpleNamespace(contracts=contracts))
    run: Any = SimpleNamespace(rows=[])
    assert columns_of(state, run, device, full=False) == ([], {"TEST-A": why})


def test_a_default_matrix_on_a_slow_machine_comes_to_its_end(
    tmp_path: Path,
) -> None:
    """It says which falsifiers it had no time for; nothing is planned that is not tried."""
    toy = _toy(tmp_path / "p")
    toy.process("-m", "aprverify", "--suite", "toy", "teeth", "-n", "1", "--run-dir", "whole")
    slow = "import sys; from aprverify.commands import teeth; teeth._BUDGET = 0.0\n"
    slow += "from aprverify.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ("teeth", "-n", "1", "--reuse", "whole", "--run-dir", "short")
    done = toy.process("-c", slow, "--suite", "toy", *words)
    run = read_run(toy.root / "short")
    assert run.matrix is not None and not run.matrix.columns and not run.matrix.untried
    assert "time is short" in run.matrix.left_out["FALSIFY-TOY-001"]
    assert "left out, the dearest: 0 s are left" in done.stdout


def test_a_run_about_other_files_is_not_reused(tmp_path: Path) -> None:
    """Its clean rows would speak for files that are gone."""
    toy = _toy(tmp_path / "p")
    toy.record("--teeth", "declared")
    toy.write({"toytrainer/constants.py": "ZERO = 0  # edited\n"})
    command = ("-m", "aprverify", "--suite", "toy", "teeth", "--reuse", "evidence/run-1")
    done = toy.process(*command)
    assert done.returncode == 2 and "about other files" in done.stderr


def _called() -> int:
    return 1


def _not_called() -> int:
    return 2


def _replacing(*names: str) -> frozenset[tuple[str, int, str]] | None:
    def plant(plant: Plant) -> None:
        for name in names:
            plant.patch(f"{__name__}:{name}", lambda original: original)

    return replaced(defect("d", kind=SOURCE, imitates="i", symptom="s", hidden="h")(plant))


def test_only_a_defect_in_functions_that_nobody_called_goes_unplanted() -> None:
    """A constant can be read without a call, so a defect in one is always planted."""
    places: set[tuple[str, int, str]] = set()
    with watched(places) as seen:
        _called()
    one, other = _replacing("_called"), _replacing("_not_called")
    assert one and other and one <= places and not other & places
    assert seen.in_process
    assert _replacing("_FALSIFIERS") is None
    assert _replacing("_not_called", "_FALSIFIERS") is None


def test_a_falsifier_that_starts_a_process_is_seen_to() -> None:
    """There a defect would be in force where nobody watches."""
    with watched(set()) as seen:
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert not seen.in_process


class _Instance:
    def train_step(self) -> None: ...


class _Subject:
    def build(self) -> _Instance:
        return _Instance()

    def command(self) -> list[str]:
        return []


def test_steps_are_counted_until_nobody_can() -> None:
    """Another process takes steps of its own."""
    steps = Steps()
    subject = CountingSubject(_Subject(), steps)
    instance = subject.build()
    assert steps.taken == 0
    instance.train_step()
    instance.train_step()
    assert steps.taken == 2
    subject.command()
    instance.train_step()
    assert steps.taken is None


@pytest.mark.parametrize("workers", ["0", "many"])
def test_a_number_of_workers_that_is_none_is_a_usage_error(toy: Toy, workers: str) -> None:
    """Before anything runs."""
    done = toy.process("-m", "aprverify", "--suite", "toy", "teeth", "-n", workers)
    assert done.returncode == 2 and "give a number" in done.stderr
