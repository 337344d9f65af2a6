"""Runs to make pages of: one with every outcome, one whose every text attacks, a large one."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from aprverify.evidence.records import (
    Run,
    contract_from,
    environment_from,
    footer_from,
    header_from,
    row_from,
)

from ..evidence.builder import (
    ENVIRONMENT,
    GPU,
    Body,
    build_run,
    comparison,
    contract,
    reason,
    row,
    series,
    write_run,
)

CASES = {"cpu-f32": "reduced", "cpu-bf16": "reduced", "cuda-bf16": "full", "cuda-f32": "full"}
DEFECTS = ("drop-bias", "eps", "other-trainer")
REMEDY = "pytest --lane cuda"
MIXED = (
    row("survived", scale="reduced", defect="eps"),
    row(
        scale="reduced", observed=0.987654321, seconds=12.5,
        series=[
            series(x=[1, 2.5, 40], y=[3.14159265358979, None, 2], measured=3),
            series(name="held out", x=range(256), y=[i / 7 for i in range(256)], measured=6000),
            series(name="by depth", y=[0.1, 0.987654321], claim="c1", y_unit=""),
        ],
    ),
    row("falsified", case="cuda-bf16", observed=math.nan, assets={"weights": "c" * 64}),
    row("not_run", case="cuda-f32", reason=reason(remedy=REMEDY)),
    row("caught", scale="reduced", defect="drop-bias", observed=3, seconds=2.0),
    row("broken", case="cpu-bf16", scale="reduced", reason=reason("crash", "signal 11")),
    row("not_run", defect="other-trainer", scale="reduced", reason=reason("subject", "foreign")),
    row(
        "falsified", case="cpu-bf16", contract="C-B", test="TEST-B", key="TEST-B[cpu-bf16]",
        scale="reduced", measures={"rate": 7.0},
        comparisons=[comparison(7.0, 0.25, text="rate <= limit", claim="rate")],
    ),
)  # fmt: skip
CONTRACT = contract(CASES, DEFECTS)
SECOND: Body = {
    **contract({"cpu-bf16": "reduced"}, ()),
    "id": "C-B",
    "title": "Rates are right",
    "path": "contracts/b.yaml",
}
SECOND["gates"] = [
    {**SECOND["gates"][0], "id": "GATE-B", "ship_blocking": False, "tests": ["TEST-B"]}
]
SECOND["tests"] = [
    {
        **SECOND["tests"][0],
        "id": "TEST-B",
        "invariants": ["INV-B", "INV-A"],
        "claims": [{"id": "rate", "expr": "rate <= limit"}],
        "if_fails": "the schedule",
    }
]

SCRIPT = "<script>globalThis.pwned = 1</script><img src=x onerror='globalThis.pwned = 1'>"
HOSTILE = "".join(
    (
        SCRIPT, "\"' onmouseover=\"globalThis.pwned = 1\" autofocus onfocus='globalThis.pwned = 1",
        "</td></tr></table></style></title></textarea><svg onload=alert(1)>", "<!--", "-->", "]]>",
        "javascript:alert(1)", "&lt;&#60;&amp", "\u202etxt.exe\u2066", "\x00\x07\x1b[31m\x7f\x85",
        "\r\n\t", "\u200b\ufeff\u2028", "%3Cscript%3E", "{{7*7}}${7*7}", "𝕏é漢",
    )
)  # fmt: skip
LONE = "\ud800"


def mixed(folder: Path) -> Run:
    """A run with one of everything, in no good order."""
    return build_run(
        folder,
        MIXED,
        contracts=(CONTRACT, SECOND),
        environment={**ENVIRONMENT, "gpus": [GPU]},
        source={"commit": "d" * 40, "dirty": True, "aprverify_version": "0.1.0",
                "aprverify_sha256": "e" * 64},
    )  # fmt: skip


def hostile(folder: Path) -> Run:
    """A run that the reader accepts, and in which every free text is an attack."""
    bad = HOSTILE
    declared = contract({bad: "full"}, (bad,), id=bad, title=bad, tests=[bad])
    declared = {**declared, "id": bad, "version": bad, "title": bad, "path": bad}
    declared["tests"] = [
        {
            **declared["tests"][0],
            "id": bad, "title": bad, "falsifier": bad, "invariants": [bad],
            "claims": [{"id": bad, "expr": bad}], "if_fails": bad,
        }
    ]  # fmt: skip
    common: Body = {
        "contract": bad, "test": bad, "falsifier": bad, "case": {"device": bad, bad: bad},
        "measures": {bad: {bad: [bad]}, "deep": _deep(200)}, "assets": {bad: "f" * 64},
        "nodeid": bad, "worker": bad,
        "series": [
            series(name=f"{bad}{i}", x_label=bad, x_unit=bad, y_label=bad, y_unit=bad, claim=claim)
            for i, claim in enumerate((None, bad))
        ],
    }  # fmt: skip
    compared = comparison(2.0, 3, claim=bad, text=bad, unit=bad)
    missed = comparison(bad, "other", "==", claim=bad, text=bad, unit=bad)
    rows = (
        {**row("held", bad), **common, "key": f"{bad}[{bad}]", "comparisons": [compared]},
        {
            **row("caught", bad, bad),
            **common,
            "key": f"{bad}[{bad}]!{bad}",
            "comparisons": [missed],
        },
    )
    environment = {
        **ENVIRONMENT, "python": bad, "platform": bad, "cpu": bad, "driver": bad,
        "packages": {bad: bad}, "variables": {bad: bad}, "gpus": [{**GPU, "name": bad}],
    }  # fmt: skip
    return _unjudged(
        folder, rows, contracts=(declared,), environment=environment,
        run_id=bad, command=[bad], suite=bad, subject=bad, require=[],
        source={"commit": bad, "dirty": False, "aprverify_version": bad,
                "aprverify_sha256": "e" * 64},
        selection={"keyword": bad, "markers": bad, "paths": [bad], "lane": "all",
                   "teeth": "declared", "complete": False},
    )  # fmt: skip


def _unjudged(folder: Path, rows: tuple[Body, ...], **options: Any) -> Run:
    """A run past the reader: the page must be safe whatever the reader learns to refuse."""
    path = write_run(folder / "run.jsonl", rows, **options)
    lines: dict[str, list[Body]] = defaultdict(list)
    for line in path.read_text("utf-8").split("\n")[:-1]:
        body = json.loads(line)
        lines[body["type"]].append(body)
    return Run(
        header=header_from(lines["header"][0]),
        contracts=tuple(map(contract_from, lines["contract"])),
        environments=tuple(map(environment_from, lines["environment"])),
        rows=tuple(map(row_from, lines["row"])),
        footer=footer_from(lines["footer"][0]),
        path=path,
        sha256="0" * 64,
    )


def _deep(levels: int) -> Body:
    value: Body = {}
    for _ in range(levels):
        value = {"x": [value]}
    return value


def large(folder: Path, rows: int) -> Run:
    """A run with as many rows, each as long as those of a real one."""
    cases = [{"device": "cpu", "arch": "tiny-qwen2", "length": 48, "seed": i} for i in range(rows)]
    measures = {"loss": 0.5, **{f"measure_{i}": i / 7 for i in range(8)}}
    compared = [comparison(i / 10) for i in range(1, 6)]
    recorded: Body = {"measures": measures, "comparisons": compared}
    ids = [",".join(f"{name}={value}" for name, value in case.items()) for case in cases]
    made = tuple(
        {**row(case=name, **recorded), "case": case} for name, case in zip(ids, cases, strict=True)
    )
    return _unjudged(folder, made, contracts=(contract(dict.fromkeys(ids, "full"), ()),))
