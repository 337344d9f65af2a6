"""The exit status: one for each kind of bad news, the worst one first."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from aprverify.evidence import verdict
from aprverify.evidence.sentences import verdict_sentence

from .builder import ENVIRONMENT, GPU, Body, build_run, contract, reason, row

ROWS: dict[int, Body] = {
    verdict.FALSIFIED: row("falsified", case="a"),
    verdict.VACUOUS: row("survived", case="b", defect="drop-bias"),
    verdict.BROKEN: row("inconclusive", case="c"),
    verdict.REQUIRED_NOT_RUN: row("not_run", case="d"),
    verdict.OK: row("held", case="e"),
}
CASES = contract({case: "full" for case in "abcde"})


@pytest.mark.parametrize(("worse", "better"), list(itertools.combinations(ROWS, 2)))
def test_the_worst_row_decides(tmp_path: Path, worse: int, better: int) -> None:
    """Every pair of outcomes, with a device required."""
    run = build_run(tmp_path, (ROWS[better], ROWS[worse]), contracts=(CASES,))
    assert verdict.exit_code(run, ["cuda"]) == worse


def test_what_did_not_run_fails_only_where_a_device_is_required(tmp_path: Path) -> None:
    """Without a requirement the held row decides."""
    rows = (ROWS[verdict.OK], ROWS[verdict.REQUIRED_NOT_RUN])
    run = build_run(tmp_path, rows, contracts=(CASES,))
    assert verdict.exit_code(run, []) == verdict.OK
    assert verdict.exit_code(run, ["cuda"]) == verdict.REQUIRED_NOT_RUN


def test_a_defect_that_does_not_apply_is_not_required(tmp_path: Path) -> None:
    """Teeth without a place in this subject; the subject's own inability is another matter."""
    unable = reason("subject", "not supported")
    teeth = row("not_run", case="a", defect="drop-bias", reason=unable)
    claim = row("not_run", case="a", reason=unable)
    held = ROWS[verdict.OK]
    foreign = build_run(tmp_path / "a", (held, teeth), contracts=(CASES,))
    assert verdict.exit_code(foreign, ["cuda"]) == verdict.OK
    unsupported = build_run(
        tmp_path / "b", (held, teeth, claim), contracts=(CASES,), require=["cuda"]
    )
    assert verdict.exit_code(unsupported, ["cuda"]) == verdict.REQUIRED_NOT_RUN
    assert "INCOMPLETE: 1 entry did not run" in verdict_sentence(unsupported)


def test_what_needs_several_gpus_is_required_by_that_name_only(tmp_path: Path) -> None:
    """A machine with one GPU runs all that it can; where there are several they are asked for."""
    several = contract({"cuda": "full", "cuda-two": "full"})
    several["tests"][0]["cases"][1]["gpus"] = 2
    rows = (row(case="cuda"), row("not_run", case="cuda-two"))
    run = build_run(
        tmp_path, rows, contracts=(several,), environment={**ENVIRONMENT, "gpus": [GPU]}
    )
    assert verdict.exit_code(run, ["cuda"]) == verdict.OK
    assert verdict.exit_code(run, ["cuda", "gpus"]) == verdict.REQUIRED_NOT_RUN


def test_nothing_ran_is_no_success(tmp_path: Path) -> None:
    """All skipped, and nothing selected at all."""
    skipped = build_run(tmp_path / "a", (row("not_run"),))
    nothing = build_run(tmp_path / "b", ())
    assert verdict.exit_code(skipped, []) == verdict.NOTHING_RAN
    assert verdict.exit_code(nothing, []) == verdict.NOTHING_RAN


def test_an_interrupted_run_has_no_verdict(tmp_path: Path) -> None:
    """Whatever its rows say: a bisect must stop on it."""
    run = build_run(tmp_path, (row("falsified"),), interrupted=True)
    assert verdict.exit_code(run, []) == verdict.INTERRUPTED
