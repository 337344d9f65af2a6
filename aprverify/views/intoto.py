"""A run as an in-toto statement about what was tested, ready to be signed by others.

Statement v1 with the predicate test-result v0.1. The subjects are run.jsonl, the commit where the
tree was clean, and each `source_id`: the hash over the files that entries rest on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from aprverify.evidence import verdict
from aprverify.evidence.reader import RUN_FILE
from aprverify.evidence.records import Row, Run
from aprverify.views.entries import PASSED

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"


def render_statement(run: Run) -> str:
    """The statement as JSON, its keys in order."""
    return json.dumps(statement(run), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def statement(run: Run) -> dict[str, Any]:
    """The statement. Whoever signs it signs the digest of run.jsonl with it.

    `warnedTests` are entries that did not run: they are no failures, and nothing was seen of them.
    The result is PASSED only where there are none.
    """
    failed = _keys(row for row in run.rows if row.outcome not in (*PASSED, "not_run"))
    warned = _keys(row for row in run.rows if row.outcome == "not_run")
    return {
        "_type": STATEMENT,
        "subject": list(_subjects(run)),
        "predicateType": PREDICATE,
        "predicate": {
            "result": _result(run, warned),
            "configuration": list(_configuration(run)),
            "passedTests": _keys(row for row in run.rows if row.outcome in PASSED),
            "warnedTests": warned,
            "failedTests": failed,
        },
    }


def _keys(rows: Iterator[Row]) -> list[str]:
    return sorted(row.key for row in rows)


def _result(run: Run, warned: Sequence[str]) -> str:
    if verdict.exit_code(run, run.header.require) != verdict.OK:
        return "FAILED"
    return "WARNED" if warned or not run.header.selection.everything else "PASSED"


def _subjects(run: Run) -> Iterator[dict[str, Any]]:
    yield _descriptor(RUN_FILE, run.sha256)
    source = run.header.source
    if source.commit and source.dirty is False:
        yield {"name": "commit", "digest": {"gitCommit": source.commit}}
    first_key: dict[str, str] = {}
    for row in sorted(run.rows, key=lambda row: row.key):
        first_key.setdefault(row.source_id, row.key)
    for source_id, key in sorted(first_key.items(), key=lambda item: item[1]):
        yield _descriptor(f"sources of {key}", source_id)


def _configuration(run: Run) -> Iterator[dict[str, Any]]:
    for contract in sorted(run.contracts, key=lambda contract: contract.path):
        yield _descriptor(contract.path, contract.sha256)
    for name, sha256 in sorted({item for row in run.rows for item in row.assets.items()}):
        yield _descriptor(f"asset {name}", sha256)
    yield _descriptor("aprverify", run.header.source.aprverify_sha256)


def _descriptor(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}
