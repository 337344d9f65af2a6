"""The matrix in a run: read, refused, judged, told and drawn; a run without one is as ever."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from aprverify.evidence import refusals, verdict
from aprverify.evidence.crosses import cross_body
from aprverify.evidence.join import write_matrix_run
from aprverify.evidence.matrix_markdown import matrix_lines, matrix_summary
from aprverify.evidence.matrix_rules import judge_matrix, matrix_exit_code
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.status import gate_statuses
from aprverify.views.pictures.matrix import render_matrix

from .builder import ENVIRONMENT, Body, build_run, contract, row

COLUMN = "TEST-A[cpu-f32]"
BY = {"claim": "c1", "text": "loss <= bound", "op": "<=", "observed": 2.0, "bound": 1.0}
KILLED = {"column": COLUMN, "outcome": "killed", "seconds": 0.1, "steps": 1, "by": BY}


def _matrix(**changes: Any) -> Body:
    body = {
        "full": False,
        "device": "cpu",
        "seconds": 0.0,
        "estimated": 0.1,
        "budget": None,
        "workers": 1,
        "planned": 1,
        "columns": [{"test": "TEST-A", "case": "cpu-f32", "seconds": 0.01}],
        "left_out": {},
    }
    return {**body, **changes}


def _run(
    folder: Path,
    *tried: Body,
    rows: tuple[Body, ...] | None = None,
    canary: str = "same",
    **matrix: Any,
) -> Run:
    """A run whose only defect was crossed so."""
    declared = build_run(folder / "declared", rows or (row(), row("caught", defect="drop-bias")))
    place = folder / "matrix"
    crosses = [cross_body("drop-bias", canary, tried or (KILLED,))]
    write_matrix_run(
        declared, place, ["aprverify", "teeth"], ENVIRONMENT, _matrix(**matrix), crosses
    )
    return read_run(place)


def test_crosses_are_read_and_change_no_status(tmp_path: Path) -> None:
    """A gate's status rests on rows alone."""
    run = _run(tmp_path)
    declared = read_run(tmp_path / "declared")
    assert run.matrix is not None and run.matrix.counts == {"killed": 1}
    assert declared.matrix is None and declared.rows == run.rows
    assert gate_statuses(run.contracts, run.rows) == gate_statuses(
        declared.contracts, declared.rows
    )
    assert matrix_exit_code(run) == verdict.OK


def test_what_never_called_the_defect_is_unreached(tmp_path: Path) -> None:
    """Though it was not planted."""
    run = _run(tmp_path, {"column": COLUMN, "never_called": True})
    assert run.matrix is not None
    assert [(c.outcome, c.seconds) for c in run.matrix.crosses] == [("unreached", 0.0)]


@pytest.mark.parametrize(
    ("tried", "matrix", "refusal", "says"),
    [
        ({**KILLED, "by": None}, {}, refusals.InconsistentRow, "not there or too many"),
        ({**KILLED, "outcome": "passed"}, {}, refusals.InconsistentRow, "not there or too many"),
        ({**KILLED, "by": {**BY, "observed": 0.5}}, {}, refusals.InconsistentRow, "which holds"),
        ({**KILLED, "by": {**BY, "claim": "c9"}}, {}, refusals.InconsistentRow, "no claim of"),
        ({**KILLED, "column": "TEST-B[x]"}, {}, refusals.InconsistentRow, "no column"),
        ({**KILLED, "outcome": "ok"}, {}, refusals.SchemaViolation, "not one of|ok"),
        (KILLED, {"planned": 2}, refusals.CountMismatch, "are missing, and nothing limited"),
        (KILLED, {"planned": 0}, refusals.CountMismatch, "0 were planned"),
        (KILLED, {"seconds": 1e12}, refusals.ClockOrder, "longer than the run"),
    ],
)
def test_a_cross_that_cannot_be_is_refused(
    tmp_path: Path,
    tried: Body,
    matrix: dict[str, Any],
    refusal: type[EvidenceRefused],
    says: str,
) -> None:
    """A kill without a failing comparison, one that is lost, one of another falsifier."""
    with pytest.raises(EvidenceRefused) as caught:
        _run(tmp_path, tried, **matrix)
    assert type(caught.value) is refusal and re.search(says, str(caught.value)), caught.value


def test_a_falsifier_that_does_not_hold_is_no_column(tmp_path: Path) -> None:
    """What fails without a defect says nothing with one."""
    with pytest.raises(refusals.InconsistentRow, match="a kill would say nothing"):
        _run(tmp_path, rows=(row("falsified"), row("caught", defect="drop-bias")))


def test_pairs_for_which_there_was_no_time_are_counted(tmp_path: Path) -> None:
    """Only where a budget was given."""
    run = _run(tmp_path, planned=5, budget=1.0)
    assert any("4 pairs were not tried" in line for line in matrix_summary(run))


@pytest.mark.parametrize(
    ("rows", "kinds", "code"),
    [
        ((row(), row("survived", defect="drop-bias")), {"survivor", "disagrees"}, verdict.VACUOUS),
        ((row(), row("caught", defect="drop-bias")), set(), verdict.OK),
    ],
)
def test_a_declared_survivor_fails_and_a_kill_beside_it_disagrees(
    tmp_path: Path, rows: tuple[Body, ...], kinds: set[str], code: int
) -> None:
    """The pair was tried twice."""
    run = _run(tmp_path, rows=rows)
    assert {finding.kind for finding in judge_matrix(run).findings} == kinds
    assert matrix_exit_code(run) == code


def test_a_defect_that_nobody_catches_and_a_falsifier_that_catches_nothing_fail(
    tmp_path: Path,
) -> None:
    """Both are told by name; what could not be tried here is open instead."""
    passed = {"column": COLUMN, "outcome": "passed", "seconds": 0.1}
    run = _run(tmp_path, passed, rows=(row(), row("broken", defect="drop-bias")))
    assert [(f.kind, f.about) for f in judge_matrix(run).findings] == [
        ("uncaught", "drop-bias"),
        ("idle", "TEST-A"),
    ]
    assert matrix_exit_code(run) == verdict.VACUOUS
    elsewhere = _run(tmp_path / "b", passed, rows=(row(), row("not_run", defect="drop-bias")))
    judged = judge_matrix(elsewhere)
    assert (judged.findings, judged.open_defects) == ((), ("drop-bias in C-A",))


def test_what_a_defect_left_behind_fails(tmp_path: Path) -> None:
    """Though the pair is not declared."""
    broken = {"column": COLUMN, "outcome": "broken", "seconds": 0.1}
    run = _run(tmp_path, broken, canary="different")
    assert matrix_exit_code(run) == verdict.BROKEN


def test_the_report_and_the_picture_tell_who_caught_it_and_how_soon(tmp_path: Path) -> None:
    """One step; the picture is XML and names the falsifier."""
    run = _run(tmp_path)
    text = "\n".join(matrix_lines(run))
    assert "| within one step | 1 | 1 |" in text
    drawn = render_matrix(run)
    ElementTree.fromstring(drawn)
    assert "drop-bias declared: TEST-A" in drawn and "prefers-color-scheme:dark" in drawn
    assert contract()["id"] in drawn
