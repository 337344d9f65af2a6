"""Where a run comes from: environments that look alike are told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aprverify.evidence.provenance import differences, provenance_lines
from aprverify.evidence.report import render_report

from .builder import build_run


def test_alike_environments_say_what_differs(tmp_path: Path) -> None:
    """One machine with two workers is named once, with the variable in which they differ."""
    run = build_run(tmp_path)
    (one,) = run.environments
    first = replace(one, id="env-1", variables={"OMP_NUM_THREADS": "4"})
    second = replace(one, id="env-2", variables={}, driver="580")
    both = replace(run, environments=(first, second))
    assert differences(first, both.environments) == " (OMP_NUM_THREADS: 4, driver: none)"
    assert differences(second, both.environments) == " (OMP_NUM_THREADS: none, driver: 580)"
    assert any("env-1" in line and "OMP_NUM_THREADS: 4" in line for line in provenance_lines(both))
    assert differences(one, (one, replace(second, cpu="Another CPU"))) == ""
    (answer,) = [line for line in render_report(both).splitlines() if "Where does it" in line]
    assert answer.count("2 cores") == 1
