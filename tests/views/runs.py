"""Runs with one of everything, to be shown in every view."""

from __future__ import annotations

import functools
import math
from pathlib import Path

from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from tests.evidence.builder import (
    ENVIRONMENT,
    GPU,
    Body,
    build_run,
    claiming,
    comparison,
    contract,
    reason,
    row,
    series,
)

CASES = {"cpu-f32": "reduced", "cuda-bf16": "full", "cuda-f32": "full"}
NASTY = '50% <b>x</b> & "q" \'|` \x00\x1b \ud7ff\n::error::gotcha\r\n</svg>]]>'
ROWS: tuple[Body, ...] = (
    row(scale="reduced", observed=0.987654),
    row("falsified", case="cuda-bf16", observed=math.nan),
    row("broken", case="cuda-f32", reason=reason("setup", NASTY, "mend\nit")),
    row("caught", scale="reduced", defect="drop-bias"),
    row("survived", scale="reduced", defect="eps"),
    row("not_run", case="cuda-f32", defect="eps", reason=reason("asset", NASTY, "get it")),
)


def declared() -> Body:
    """The contract of `ROWS`; its test stands in line 7."""
    body = contract(CASES, ("drop-bias", "eps"))
    body["tests"][0]["line"] = 7
    return body


def mixed(folder: Path, rows: tuple[Body, ...] = ROWS, **options: object) -> Run:
    """A run with an entry of every outcome but inconclusive."""
    machine = {**ENVIRONMENT, "gpus": [GPU]}
    return build_run(folder, rows, contracts=(declared(),), environment=machine, **options)


def recording(folder: Path) -> Run:
    """Four cases with a curve of two lines and an error by depth; one falsified, one with a gap.

    Its names hold markup.
    """
    cases = {f"cpu-{name}": "full" for name in "abcd"}
    observed = {"cpu-a": 0.5, "cpu-b": 0.01, "cpu-c": 20.0, "cpu-d": math.nan}
    return build_run(
        folder,
        tuple(_recorded(case, value) for case, value in observed.items()),
        contracts=(contract(cases),),
    )


def _recorded(case: str, observed: float) -> Body:
    outcome = "held" if observed <= 1 else "falsified"
    judged = [0.001, None if math.isnan(observed) else observed, 0.0]
    depth = {"x_label": "depth", "y_label": "error", "y_unit": "", "claim": "c1"}
    found = [
        series(name=NASTY[:8], x=[*range(1, 101)], y=[math.exp(-i / 30) for i in range(100)]),
        series(name="held out", x=[20, 60, 100], y=[0.7, None, 0.3]),
        series(name="by depth", y=judged, **depth),
    ]
    return row(outcome, case=case, observed=observed, series=found)


def saying(folder: Path, text: str) -> Run:
    """A run in which a trainer said `text` and was not believed."""
    claim = "loss contains 'fine'"
    body = row("falsified", comparisons=[comparison(text, "fine", "contains", text=claim)])
    return build_run(folder, (body,), contracts=(claiming(claim),))


@functools.cache
def committed() -> tuple[Run, ...]:
    """The promoted runs."""
    folders = Path(__file__).resolve().parents[2] / "evidence" / "runs"
    return tuple(read_run(folder) for folder in sorted(folders.iterdir()))
