"""``aprverify explain``: exit statuses, both forms, and that no run gets hold of the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aprverify.cli import main
from tests.evidence.builder import build_run, contract, reason, row, tamper
from tests.evidence.test_terminal import EVIL, harmless

from .runs import CASES, CLEAN, DEFECTS, contracts, evidence, failing


def test_a_failed_run_is_explained_and_no_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 0, with evidence by the folder that holds it; JSON says the same."""
    build_run(tmp_path / "run", (failing(41.0), CLEAN[1]), contracts=contracts())
    evidence(tmp_path / "runs" / "known")
    words = ["explain", str(tmp_path / "run"), "--evidence", str(tmp_path / "runs")]
    assert main(words) == 0
    assert "eps: likeness 1.00" in capsys.readouterr().out
    assert main([*words[:2], "TEST-A", *words[2:], "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["failures"][0]["causes"][0]["defect"] == "eps"
    assert body["failures"][0]["tests"][0]["told_by"] == "TEST-A[cpu-a]"


def test_an_unknown_id_is_a_usage_error_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names what the run does have."""
    build_run(tmp_path, (failing(2.0), CLEAN[1]), contracts=contracts())
    assert main(["explain", str(tmp_path), "TEST-B"]) == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
def test_a_refused_run_is_explained_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    """Exit status 7; what it usually comes from, and what to do."""
    build_run(tmp_path, (failing(2.0), CLEAN[1]), contracts=contracts())
    tamper(tmp_path / "run.jsonl", "header", lambda body: body.update(subject="x"), chained=False)
    assert main(["explain", str(tmp_path), *(["--json"] if as_json else [])]) == 7
    said = capsys.readouterr()
    assert "changed after it was written" in said.err and "What to do" in said.err
    assert not as_json or json.loads(said.out)["refused"] == "BrokenChain"


def test_infinite_and_absent_numbers_are_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN is no JSON."""
    rows = (failing(float("nan")), row("falsified", case="cpu-b", observed=float("inf")))
    build_run(tmp_path, rows, contracts=contracts())
    assert main(["explain", str(tmp_path), "--json"]) == 0
    json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_whatever_a_run_says_is_text_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: list[str]
) -> None:
    """In titles, incidents, reasons, measures, units, series, commits, machines and node ids."""
    body = contract(CASES, DEFECTS) | {"title": EVIL, "motivation": EVIL, "references": [EVIL]}
    body["invariants"] = [{"id": "INV-A", "rule": EVIL}]
    body["tests"][0] |= {"title": EVIL, "if_fails": EVIL}
    measures = {"loss": 2.0, "worst_loss": EVIL, "fault": EVIL}
    rows = (
        row("falsified", case="cpu-a", measures=measures, nodeid=EVIL),
        row("broken", case="cpu-b", reason=reason("error", EVIL, EVIL), nodeid=EVIL),
        row("survived", case="cpu-a", defect="eps", nodeid=EVIL),
        row("not_run", case="cpu-a", defect="theta", reason=reason("asset", EVIL, EVIL)),
        row("broken", case="cpu-a", defect="drop-bias", reason=reason("plant", EVIL, EVIL)),
    )
    machine = {
        "python": EVIL, "platform": EVIL, "cpu": EVIL, "cores": 1, "memory_gib": 1.0,
        "packages": {"torch": EVIL}, "gpus": [], "driver": EVIL, "variables": {EVIL: EVIL},
    }  # fmt: skip
    source = {
        "commit": "a" * 40,
        "dirty": True,
        "aprverify_version": EVIL,
        "aprverify_sha256": "a" * 64,
    }
    build_run(tmp_path, rows, contracts=(body,), environment=machine, source=source)
    for name in ([], ["TEST-A"]):
        assert main(["explain", str(tmp_path), *name, *as_json]) == 0
        said = capsys.readouterr()
        assert "GATE MET" in said.out and harmless(said.out) and harmless(said.err)
    assert main(["explain", str(tmp_path), EVIL]) == 2
    assert harmless(capsys.readouterr().err)
