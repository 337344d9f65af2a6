"""Every view is a pure function of the run: the same bytes whoever reads it, in whatever order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from aprverify.evidence.report import render_report
from aprverify.views.annotations import render_annotations
from aprverify.views.beside import files_of_index
from aprverify.views.intoto import render_statement
from aprverify.views.job_summary import render_job_summary
from aprverify.views.junit import render_junit
from aprverify.views.pictures.curves import render_curves, render_errors
from aprverify.views.pictures.margins import render_margins
from aprverify.views.pictures.teeth import render_teeth

from .runs import committed, mixed, recording

VIEWS: dict[str, Callable[[Run], str]] = {
    "report": render_report,
    "index": lambda run: "".join(files_of_index([run]).values()),
    "margins": render_margins,
    "teeth": render_teeth,
    "curves": render_curves,
    "errors": render_errors,
    "junit": render_junit,
    "in-toto": render_statement,
    "job summary": render_job_summary,
    "annotations": render_annotations,
}


def runs(tmp_path: Path) -> list[Run]:
    """One of everything, one with series, and what is committed."""
    return [mixed(tmp_path), recording(tmp_path / "series"), *committed()]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_does_not_depend_on_the_order_in_which_workers_finished(
    tmp_path: Path, view: str
) -> None:
    """Rows and machines shuffled, twice: the same bytes."""
    for run in runs(tmp_path):
        expected = VIEWS[view](run)
        assert expected == VIEWS[view](run)
        for seed in (0, 1):
            rows, machines = list(run.rows), list(run.environments)
            random.Random(seed).shuffle(rows)
            random.Random(seed).shuffle(machines)
            shuffled = replace(run, rows=tuple(rows), environments=tuple(machines))
            assert VIEWS[view](shuffled) == expected


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_depends_on_the_file_alone(tmp_path: Path, view: str) -> None:
    """Neither the place nor the machine that reads it is in it."""
    text = VIEWS[view](mixed(tmp_path))
    assert str(tmp_path) not in text
    assert text == VIEWS[view](read_run(tmp_path))
