"""The in-toto statement: the fields that its specification requires, and what it vouches for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from aprverify.evidence.refusals import SchemaViolation
from aprverify.views.intoto import render_statement
from tests.evidence.builder import SHA, Body, build_run, row

from .runs import committed, mixed

LISTS = ("passedTests", "warnedTests", "failedTests")


def statement(*arguments: Any, **options: Any) -> dict[str, Any]:
    """The statement of a run built so."""
    found: dict[str, Any] = json.loads(render_statement(build_run(*arguments, **options)))
    return found


def check_required(body: dict[str, Any]) -> None:
    """What Statement v1 and test-result v0.1 require."""
    assert body["_type"] == "https://in-toto.io/Statement/v1"
    assert body["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert body["subject"]
    for descriptor in (*body["subject"], *body["predicate"]["configuration"]):
        assert isinstance(descriptor["name"], str) and descriptor["digest"]
        for algorithm, value in descriptor["digest"].items():
            length = {"sha256": 64, "gitCommit": 40}[algorithm]
            assert re.fullmatch(f"[0-9a-f]{{{length}}}", value)
    names = [subject["name"] for subject in body["subject"]]
    assert len(set(names)) == len(names)
    assert body["predicate"]["result"] in ("PASSED", "WARNED", "FAILED")
    assert body["predicate"].keys() == {"result", "configuration", *LISTS}


def test_the_statement_has_what_its_specification_requires(tmp_path: Path) -> None:
    """Also of the committed runs; each entry stands in exactly one list."""
    for run in (mixed(tmp_path), *committed()):
        body = json.loads(render_statement(run))
        check_required(body)
        named = [key for name in LISTS for key in body["predicate"][name]]
        assert sorted(named) == sorted(row.key for row in run.rows)


def test_its_subjects_are_the_run_the_clean_commit_and_the_sources(tmp_path: Path) -> None:
    """A commit with changes on top is not what was tested."""
    commit = "c" * 40
    for dirty, named in ((False, True), (True, False), (None, False)):
        source = {
            "commit": commit,
            "dirty": dirty,
            "aprverify_version": "0.1.0",
            "aprverify_sha256": SHA,
        }
        run = build_run(tmp_path / str(dirty), source=source)
        found = {s["name"]: s["digest"] for s in json.loads(render_statement(run))["subject"]}
        assert found["run.jsonl"] == {"sha256": run.sha256}
        assert found["sources of TEST-A[cpu-f32]"] == {"sha256": SHA}
        assert ("commit" in found) is named


@pytest.mark.parametrize(
    ("body", "name", "result"),
    [
        (row(), "passedTests", "PASSED"),
        (row("falsified"), "failedTests", "FAILED"),
        (row("broken"), "failedTests", "FAILED"),
        (row("inconclusive"), "failedTests", "FAILED"),
        (row("not_run"), "warnedTests", "FAILED"),
    ],
)
def test_each_outcome_has_its_list_and_its_result(
    tmp_path: Path, body: Body, name: str, result: str
) -> None:
    """Beside a defect that was caught; where nothing was seen of a claim, nothing passed."""
    rows = (body,) if body["outcome"] == "not_run" else (body, row("caught", defect="drop-bias"))
    predicate = statement(tmp_path, rows)["predicate"]
    assert body["key"] in predicate[name]
    assert predicate["result"] == result


def test_what_did_not_run_or_was_not_asked_for_is_a_warning(tmp_path: Path) -> None:
    """Not a pass: something may hide there."""
    skipped = statement(tmp_path / "a", (row(), row("not_run", defect="drop-bias")))
    assert skipped["predicate"]["result"] == "WARNED"
    partial = statement(tmp_path / "b", (row(),))
    assert partial["predicate"]["result"] == "WARNED"


def test_a_survivor_and_an_interruption_fail(tmp_path: Path) -> None:
    """Whatever held beside them."""
    survivor = statement(tmp_path / "a", (row(), row("survived", defect="drop-bias")))
    assert survivor["predicate"]["failedTests"] == ["TEST-A[cpu-f32]!drop-bias"]
    assert survivor["predicate"]["result"] == "FAILED"
    assert statement(tmp_path / "b", interrupted=True)["predicate"]["result"] == "FAILED"


@pytest.mark.parametrize("commit", ["main", "a" * 39, "A" * 40, "a" * 41, ""])
def test_a_commit_is_a_hash_or_nothing(tmp_path: Path, commit: str) -> None:
    """Any other text would become the digest of a statement that somebody signs."""
    source = {"dirty": False, "aprverify_version": "0.1.0", "aprverify_sha256": "b" * 64}
    with pytest.raises(SchemaViolation, match="commit"):
        build_run(tmp_path, source={**source, "commit": commit})
    for good in ("a" * 40, "b" * 64, None):
        build_run(tmp_path / f"{good}", source={**source, "commit": good})
