"""A small good run to start from: every test damages one thing in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aprverify.contract.claims import compare, slack_and_margin
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import ContractRecord, Row, Run, contract_from, row_from
from aprverify.evidence.values import encode
from aprverify.evidence.writer import RunWriter

Body = dict[str, Any]
SHA = "a" * 64
NEWER_SHA = "b" * 64
ENVIRONMENT: Body = {
    "python": "3.11.7",
    "platform": "Linux-6.1-x86_64",
    "cpu": "Some CPU",
    "cores": 2,
    "memory_gib": 24.0,
    "packages": {"torch": "2.13.0", "numpy": "2.1.0"},
    "gpus": [],
    "driver": None,
    "variables": {"OMP_NUM_THREADS": "2"},
}
GPU = {"name": "Some GPU", "memory_gib": 80.0, "compute_capability": "9.0"}


def contract(
    cases: Mapping[str, str] | None = None,
    counter_examples: tuple[str, ...] = ("drop-bias",),
    **gate: Any,
) -> Body:
    """A contract with one gate, GATE-A, over one test, TEST-A, with one claim, c1."""
    cases = {"cpu-f32": "full"} if cases is None else cases
    return {
        "id": "C-A",
        "version": "1.0.0",
        "title": "Losses are right",
        "path": "contracts/a.yaml",
        "sha256": SHA,
        "gates": [
            {
                "id": "GATE-A",
                "title": "The loss is right",
                "ship_blocking": True,
                "about": "trainer",
                "allows_partial": False,
                "tests": ["TEST-A"],
                **gate,
            }
        ],
        "tests": [
            {
                "id": "TEST-A",
                "title": "Eval loss is near ln V",
                "falsifier": "falsifiers.eval:falsify_eval",
                "invariants": ["INV-A"],
                "claims": [{"id": "c1", "expr": "loss <= bound"}],
                "cases": [
                    {"id": case, "scale": scale, "device": _device(case)}
                    for case, scale in cases.items()
                ],
                "counter_examples": list(counter_examples),
                "if_fails": "the loss function | its mean",
            }
        ],
    }


def claiming(expression: str) -> Body:
    """The contract with another claim."""
    body = contract()
    body["tests"][0]["claims"] = [{"id": "c1", "expr": expression}]
    return body


def _device(case: str) -> str:
    return "cuda" if case.startswith("cuda") else "cpu"


def comparison(observed: Any = 0.5, bound: Any = 1.0, op: str = "<=", **changes: Any) -> Body:
    """``loss <= 1``, honestly evaluated."""
    slack, margin = slack_and_margin(op, observed, bound)
    return {
        "claim": "c1",
        "text": "loss <= bound",
        "op": op,
        "observed": observed,
        "bound": bound,
        "unit": "nats",
        "slack": slack,
        "margin": margin,
        "holds": compare(op, observed, bound),
        **changes,
    }


def row(
    outcome: str = "held",
    case: str = "cpu-f32",
    defect: str | None = None,
    observed: Any = None,
    **changes: Any,
) -> Body:
    """A row whose comparisons, plant and reason fit its outcome."""
    good = {"held": 0.5, "survived": 0.5, "falsified": 2.0, "caught": 2.0}
    verdict = outcome in good
    observed = good.get(outcome) if observed is None else observed
    planted = outcome in ("caught", "survived")
    suffix = f"!{defect}" if defect else ""
    return {
        "key": f"TEST-A[{case}]{suffix}",
        "kind": "teeth" if defect else "claim",
        "contract": "C-A",
        "test": "TEST-A",
        "falsifier": "falsifiers.eval:falsify_eval",
        "case": {"device": _device(case)},
        "scale": "full",
        "defect": defect,
        "outcome": outcome,
        "reason": None if verdict else reason(),
        "comparisons": [comparison(observed)] if verdict else [],
        "measures": _measures(changes.get("comparisons"), observed) if verdict else {},
        "plant": {"reached": 3, "changed": 2, "canary": "same"} if planted else None,
        "assets": {},
        "source_id": SHA,
        "environment": "",
        "started": "2026-01-02T08:00:01.5Z",
        "seconds": 0.25,
        "nodeid": f"contracts/a.yaml::falsify_eval[{case}{suffix}]",
        "worker": "main",
        **changes,
    }


def _measures(comparisons: list[Body] | None, observed: Any) -> Body:
    return {"loss": comparisons[0]["observed"] if comparisons else observed}


def reason(kind: str = "device", detail: str = "no CUDA device", remedy: str = "") -> Body:
    """Why a row has no verdict."""
    return {"kind": kind, "detail": detail, "remedy": remedy}


def series(**changes: Any) -> Body:
    """A loss over three steps, or other values; as many as there are were measured."""
    body = {
        "name": "loss",
        "x_label": "optimizer steps",
        "x_unit": "",
        "y_label": "loss",
        "y_unit": "nats/token",
        "claim": None,
        "x": list(changes.pop("x", range(len(changes.get("y", "abc"))))),
        "y": [2.0, 1.0, 0.5],
    }
    return {"measured": len(body["x"]), **body, **changes}


GOOD_ROWS = (row(), row("caught", defect="drop-bias"))


def write_run(
    path: Path,
    rows: tuple[Body, ...] = GOOD_ROWS,
    contracts: tuple[Body, ...] | None = None,
    interrupted: bool = False,
    environment: Body | None = None,
    **header: Any,
) -> Path:
    """Write a run to `path` through the real writer, and return `path`."""
    with RunWriter(path) as writer:
        writer.header(
            {
                "run_id": "run-1",
                "started": "2026-01-02T08:00:00Z",
                "command": ["pytest", "-k", "falsify_*"],
                "suite": "bundled",
                "subject": "bundled",
                "selection": {
                    "keyword": "",
                    "markers": "",
                    "paths": [],
                    "lane": "all",
                    "teeth": "declared",
                    "complete": _is_complete(rows, contracts or (contract(),)),
                },
                "require": [],
                "source": {
                    "commit": None,
                    "dirty": None,
                    "aprverify_version": "0.1.0",
                    "aprverify_sha256": SHA,
                },
                "planned": len(rows),
                **header,
            }
        )
        for body in contracts or (contract(),):
            writer.contract(body)
        name = writer.environment(environment or ENVIRONMENT)
        for body in rows:
            writer.row({**body, "environment": body["environment"] or name})
        writer.footer(interrupted)
    return path


def _is_complete(rows: tuple[Body, ...], contracts: tuple[Body, ...]) -> bool:
    """Whether every case, and every counter-example somewhere, has a row."""
    keys = {body["key"] for body in rows}
    planted = {(body["test"], body["defect"]) for body in rows}
    tests = [test for body in contracts for test in body["tests"]]
    return all(f"{t['id']}[{case['id']}]" in keys for t in tests for case in t["cases"]) and all(
        (t["id"], defect) in planted for t in tests for defect in t["counter_examples"]
    )


def build_run(path: Path, rows: tuple[Body, ...] = GOOD_ROWS, **options: Any) -> Run:
    """Write a run into the folder `path` and read it back."""
    return read_run(write_run(path / "run.jsonl", rows, **options))


def tamper(path: Path, kind: str, change: Callable[[Body], None], chained: bool = True) -> int:
    """Change the first line of a kind in place; mend the chain unless told not to.

    Returns the number of the line.
    """
    bodies = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    index = next(i for i, body in enumerate(bodies) if body["type"] == kind)
    change(bodies[index])
    rewrite(path, bodies, chained)
    return index + 1


def rewrite(path: Path, bodies: list[Body], chained: bool = True) -> None:
    """Write raw lines, with a good `seq` and `prev` unless told not to."""
    lines: list[bytes] = []
    for number, body in enumerate(bodies):
        if chained:
            previous = hashlib.sha256(lines[-1]).hexdigest() if lines else ""
            body.update(seq=number, prev=previous)
        lines.append(json.dumps(body, ensure_ascii=False).encode())
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def contracts_and_rows(
    rows: tuple[Body, ...], *contracts: Body
) -> tuple[list[ContractRecord], list[Row]]:
    """Records without a file, for what takes contracts and rows."""
    found = contracts or (contract(),)
    return [contract_from(body) for body in found], [row_from(encode(dict(body))) for body in rows]
