"""The job summary: what GitHub takes, and what stays when it is too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from aprverify.evidence.report import sections
from aprverify.views.job_summary import LIMIT, render_job_summary
from tests.evidence.builder import build_run, contract, reason, row

from .runs import ROWS, mixed


def test_a_small_run_is_shown_whole_and_without_pictures(tmp_path: Path) -> None:
    """A summary has no files beside it."""
    run = mixed(tmp_path)
    text = render_job_summary(run)
    assert text.startswith("**Not shown:**")
    assert all(section.text in text for section in sections(run))
    assert ".svg" not in text and "Left out" not in text


def test_a_large_run_stays_within_the_limit_and_says_what_is_missing(tmp_path: Path) -> None:
    """Whole sections go; the others stand as they are."""
    cases = {f"cpu-{n:05}-{'é' * 40}": "full" for n in range(9000)}
    rows = tuple(row(case=case) for case in cases)
    run = build_run(tmp_path, rows, contracts=(contract(cases),))
    text = render_job_summary(run)
    assert len(text.encode()) <= LIMIT
    assert text.rstrip().splitlines()[-1].startswith("**Left out here,**")
    assert "1 MiB: Every entry. `aprverify report RUN`" in text
    assert all(s.text in text for s in sections(run) if s.title != "Every entry")


@pytest.mark.parametrize("limit", range(2500, 9000, 250))
def test_a_section_is_there_as_a_whole_or_named_as_left_out(tmp_path: Path, limit: int) -> None:
    """Wherever the limit falls; a short one may still fit after a long one."""
    run = mixed(tmp_path)
    text = render_job_summary(run, limit)
    assert len(text.encode()) <= limit
    named = text.partition("1 MiB: ")[2].partition(". `")[0].split(", ")
    for section in sections(run):
        assert (section.text in text) is (section.title not in named)


def test_the_limit_counts_bytes_and_not_characters(tmp_path: Path) -> None:
    """A summary that fits by its characters alone is dropped by GitHub as a whole."""
    run = mixed(
        tmp_path,
        (
            *ROWS[:-1],
            row("not_run", case="cuda-f32", defect="eps", reason=reason("asset", "é" * 900)),
        ),
    )
    limit = len(render_job_summary(run))
    assert len(render_job_summary(run).encode()) > limit
    assert len(render_job_summary(run, limit).encode()) <= limit
