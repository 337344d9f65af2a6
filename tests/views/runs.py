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
