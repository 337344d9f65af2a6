"""Runs of the toy suite that are about its present files, without running anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aprverify.contract.claims import Value, evaluate
from aprverify.evidence.describe import describe_contract
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from aprverify.evidence.writer import RunWriter
from aprverify.gate.checkout import open_checkout, present_source_ids
from aprverify.plan import Entry
from tests.conftest import Toy

STARTED = "2026-01-02T08:00:00.000000Z"
CPU: Mapping[str, Any] = {
    "python": "3.11.7",
    "platform": "Linux-6.1-x86_64",
    "cpu": "Some CPU",
    "cores": 2,
    "memory_gib": 24.0,
    "packages": {"torch": "2.13.0+cpu"},
    "gpus": [],
    "driver": None,
    "variables": {},
}
H100: Mapping[str, Any] = {
    **CPU,
    "packages": {"torch": "2.11.0"},
    "gpus": [{"name": "NVIDIA H100 80GB HBM3", "memory_gib": 79.6, "compute_capability": "9.0"}],
    "driver": "580.159.04",
}
NO_DEVICE = {"kind": "device", "detail": "no CUDA device", "remedy": "run it on a GPU machine"}
_MEASURED = {"held": 3.0, "survived": 3.0, "falsified": 4.0, "caught": 4.0}


def row(entry: Entry, outcome: str, source_id: str, **changes: Any) -> dict[str, Any]:
    """An honest row of an entry of the toy suite, which claims that x is 3."""
    measured = _MEASURED.get(outcome)
    comparisons = []
    if measured is not None:
        values: dict[str, Value] = {**entry.contract.constants, "x": measured}
        for claim in entry.test.claims:
            for comparison in claim.comparisons:
                found = evaluate(comparison, values, {"x": "1"})
                comparisons.append({"claim": claim.id, **vars(found)})
    planted = outcome in ("caught", "survived")
    return {
        "key": entry.key,
        "kind": entry.kind,
        "contract": entry.contract.id,
        "test": entry.test.id,
        "falsifier": entry.test.falsifier,
        "case": dict(entry.case.parameters),
        "scale": entry.case.scale,
        "defect": entry.defect,
        "outcome": outcome,
        "reason": None if measured is not None else NO_DEVICE,
        "comparisons": comparisons,
        "measures": {} if measured is None else {"x": measured},
        "plant": {"reached": 1, "changed": 1, "canary": "same"} if planted else None,
        "assets": {},
        "source_id": source_id,
        "started": STARTED,
        "seconds": 0.0,
        "nodeid": "",
        "worker": "main",
        **changes,
    }


def good(entry: Entry) -> str:
    """The outcome that everybody hopes for."""
    return "caught" if entry.defect else "held"


def write_run(
    toy: Toy,
    name: str,
    outcomes: Mapping[str, str] | None = None,
    *,
    only: Iterable[str] | None = None,
    environments: Mapping[str, Mapping[str, Any]] | None = None,
    started: str = STARTED,
    changes: Mapping[str, Any] | None = None,
    **header: Any,
) -> Path:
    """A run of the toy suite in ``runs/NAME``: everything as hoped for, but for `outcomes` by key.

    `only`: the keys that it has rows of; `environments`: by device; `changes`: of every row.
    """
    checkout = open_checkout(toy.suite)
    assert not checkout.loaded.problems, checkout.loaded.problems[0]
    ids = present_source_ids(checkout, "toy")
    where = {"cpu": CPU, "cuda": H100, **(environments or {})}
    entries = [e for e in checkout.entries.values() if only is None or e.key in set(only)]
    folder = toy.root / "runs" / name
    with RunWriter(folder / "run.jsonl") as writer:
        writer.header(
            {
                "run_id": name,
                "started": started,
                "command": ["pytest"],
                "suite": "toy",
                "subject": "toy",
                "selection": {
                    "keyword": "",
                    "markers": "",
                    "paths": ["toysuite"],
                    "lane": "all",
                    "teeth": "declared",
                    "complete": only is None,
                },
                "require": [],
                "source": {
                    "commit": None,
                    "dirty": None,
                    "aprverify_version": "0.1.0",
                    "aprverify_sha256": "a" * 64,
                },
                "planned": len(entries),
                **header,
            }
        )
        for contract in checkout.loaded.contracts:
            writer.contract(describe_contract(contract, toy.root))
        for entry in entries:
            environment = writer.environment(where[entry.device])
            outcome = (outcomes or {}).get(entry.key, good(entry))
            body = row(entry, outcome, ids[entry.key], started=started)
            writer.row({**body, "environment": environment, **(changes or {})})
        writer.footer(False, started)
    return folder


def read(folder: Path) -> Run:
    """The run, as the reader accepts it."""
    return read_run(folder)
