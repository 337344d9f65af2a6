"""Reading: a good run is read whole, and every way to damage one is refused under its own name."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aprverify.evidence import refusals
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import EvidenceRefused

from .builder import (
    ENVIRONMENT,
    GOOD_ROWS,
    GPU,
    Body,
    build_run,
    claiming,
    comparison,
    contract,
    reason,
    rewrite,
    row,
    tamper,
    write_run,
)

Change = Callable[[Body], Any]


def refused(path: Path) -> EvidenceRefused:
    """The refusal of a run that must be refused."""
    with pytest.raises(EvidenceRefused) as caught:
        read_run(path)
    return caught.value


def test_a_good_run_is_read_whole(tmp_path: Path) -> None:
    """Folder and file give the same run, with every line in it."""
    run = build_run(tmp_path)
    assert [r.key for r in run.rows] == ["TEST-A[cpu-f32]", "TEST-A[cpu-f32]!drop-bias"]
    assert [c.id for c in run.contracts] == ["C-A"]
    assert run.rows[0].environment == run.environments[0].id
    assert dict(run.footer.outcomes) == {"caught": 1, "held": 1}
    assert run == read_run(tmp_path / "run.jsonl")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_numbers_survive_the_file(tmp_path: Path, value: float) -> None:
    """NaN and the infinities come back as the floats they were."""
    broken = comparison(value, slack=math.nan, margin=None)
    run = build_run(tmp_path, (row("falsified", comparisons=[broken]),))
    (found,) = run.rows[0].comparisons
    assert repr(found.observed) == repr(value)
    assert found.slack is not None and math.isnan(found.slack)


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    """No file, no evidence; a folder without a run.jsonl neither."""
    assert type(refused(tmp_path / "none.jsonl")) is refusals.MissingRun
    assert type(refused(tmp_path)) is refusals.MissingRun


def test_an_empty_run_is_refused(tmp_path: Path) -> None:
    """A file of no bytes is its own reason."""
    (tmp_path / "run.jsonl").write_bytes(b"")
    assert type(refused(tmp_path)) is refusals.EmptyRun


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"type":NaN}', b'{"a":1,"a":2}', b"\xff", b"", b"[" * 100_000]
)
def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path, line: bytes) -> None:
    """Cut JSON, another type, a bare NaN, a repeated key, bytes that are no text, a blank line."""
    path = write_run(tmp_path / "run.jsonl")
    lines = path.read_bytes().splitlines()
    lines[2] = line
    path.write_bytes(b"".join(item + b"\n" for item in lines))
    refusal = refused(path)
    assert type(refusal) is refusals.DamagedLine
    assert refusal.line == 3


def test_a_last_line_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """A disk that filled up leaves no newline, even where the JSON happens to be whole."""
    path = write_run(tmp_path / "run.jsonl")
    path.write_bytes(path.read_bytes()[:-1])
    assert type(refused(path)) is refusals.DamagedLine


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("header", lambda b: b.update(schema="aprverify-run/2")),
        ("header", lambda b: b.update(planned=-1)),
        ("contract", lambda b: b.pop("gates")),
        ("environment", lambda b: b.update(extra=1)),
        ("row", lambda b: b.update(outcome="passed")),
        ("row", lambda b: b.pop("source_id")),
        ("row", lambda b: b.update(type="note")),
        ("row", lambda b: b.update(type=["row"])),
        ("row", lambda b: b["comparisons"][0].update(margin="small")),
        ("footer", lambda b: b.update(rows="2")),
    ],
)
def test_a_line_that_does_not_fit_the_schema_is_refused(
    tmp_path: Path, kind: str, change: Change
) -> None:
    """Each kind of line is held against its own part of the schema."""
    path = write_run(tmp_path / "run.jsonl")
    number = tamper(path, kind, change)
    refusal = refused(path)
    assert type(refusal) is refusals.SchemaViolation
    assert refusal.line == number


@pytest.mark.parametrize("misplaced", ["no header", "two headers", "after the footer"])
def test_a_line_out_of_place_is_refused(tmp_path: Path, misplaced: str) -> None:
    """One header first, the footer last."""
    path = write_run(tmp_path / "run.jsonl")
    bodies = [json.loads(line) for line in path.read_text().splitlines()]
    changed = {
        "no header": bodies[1:],
        "two headers": [bodies[0], dict(bodies[0]), *bodies[1:]],
        "after the footer": [*bodies, dict(bodies[3])],
    }[misplaced]
    rewrite(path, changed)
    assert type(refused(path)) is refusals.SchemaViolation


def test_a_value_edited_by_hand_breaks_the_chain(tmp_path: Path) -> None:
    """The line after the edited one no longer names its hash."""
    path = write_run(tmp_path / "run.jsonl")
    number = tamper(path, "row", lambda b: b.update(seconds=9.0), chained=False)
    refusal = refused(path)
    assert type(refusal) is refusals.BrokenChain
    assert refusal.line is not None and refusal.line <= number + 1


@pytest.mark.parametrize("drop", [0, 1, 3])
def test_a_dropped_line_breaks_the_chain(tmp_path: Path, drop: int) -> None:
    """Wherever it stood."""
    path = write_run(tmp_path / "run.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:drop] + lines[drop + 1 :]))
    assert type(refused(path)) is refusals.BrokenChain


def test_the_sequence_alone_breaks_the_chain(tmp_path: Path) -> None:
    """A last line with a good hash and another number was written by something else."""
    path = write_run(tmp_path / "run.jsonl")
    *before, footer = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(before) + footer.replace(b'"seq":5', b'"seq":9'))
    refusal = refused(path)
    assert type(refusal) is refusals.BrokenChain
    assert "seq is 9, expected 5" in str(refusal)


def test_the_hash_alone_breaks_the_chain(tmp_path: Path) -> None:
    """Sequence numbers in order do not make up for a wrong hash."""
    path = write_run(tmp_path / "run.jsonl")
    tamper(path, "row", lambda b: b.update(prev="0" * 64), chained=False)
    assert type(refused(path)) is refusals.BrokenChain


def test_a_run_without_its_footer_is_refused(tmp_path: Path) -> None:
    """A run that was killed is no evidence, though all its lines are good."""
    path = write_run(tmp_path / "run.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert type(refused(path)) is refusals.NoFooter


def test_more_planned_than_rows_is_refused(tmp_path: Path) -> None:
    """An entry that vanished between plan and row is noticed."""
    refusal = refused(write_run(tmp_path / "run.jsonl", planned=3))
    assert type(refusal) is refusals.CountMismatch
    assert "planned in the header 3" in str(refusal) and "row lines 2" in str(refusal)


def test_a_row_line_that_the_footer_counts_and_nobody_wrote_is_refused(tmp_path: Path) -> None:
    """Three planned, three counted, two there."""
    path = write_run(tmp_path / "run.jsonl", planned=3)
    tamper(path, "footer", lambda b: b.update(rows=3, outcomes={"held": 2, "caught": 1}))
    refusal = refused(path)
    assert type(refusal) is refusals.CountMismatch
    assert "rows in the footer 3, row lines 2" in str(refusal)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.update(rows=3),
        lambda b: b.update(planned=3),
        lambda b: b["outcomes"].update(held=2),
        lambda b: b["outcomes"].update(held=2, caught=0),
    ],
)
def test_a_footer_that_counts_otherwise_is_refused(tmp_path: Path, change: Change) -> None:
    """Planned, rows and outcomes, each by itself, and an outcome moved to another."""
    path = write_run(tmp_path / "run.jsonl")
    tamper(path, "footer", change)
    assert type(refused(path)) is refusals.CountMismatch


@pytest.mark.parametrize("kind", ["row", "contract", "environment"])
def test_a_second_line_of_one_identity_is_refused(tmp_path: Path, kind: str) -> None:
    """No entry, contract or environment is there twice."""
    path = write_run(tmp_path / "run.jsonl")
    bodies = [json.loads(line) for line in path.read_text().splitlines()]
    index = next(i for i, body in enumerate(bodies) if body["type"] == kind)
    rewrite(path, [*bodies[: index + 1], dict(bodies[index]), *bodies[index + 1 :]])
    assert type(refused(path)) is refusals.DuplicateKey


def test_a_complete_run_that_left_something_out_is_refused(tmp_path: Path) -> None:
    """It would count as everything, and say in one breath that it is not."""
    path = write_run(tmp_path / "run.jsonl")
    dear = {"seconds": 15, "entries": 1}
    tamper(path, "header", lambda body: body["selection"].update(too_dear=dear))
    refusal = refused(path)
    assert type(refusal) is refusals.CountMismatch
    assert "complete, and yet entries were left out for their cost: 1" in str(refusal)


def test_one_contract_in_two_versions_is_refused(tmp_path: Path) -> None:
    """Though the second declares nothing else that is there already."""
    contracts = (contract(), {**contract(), "version": "2.0.0", "tests": [], "gates": []})
    path = write_run(tmp_path / "run.jsonl", contracts=contracts)
    assert type(refused(path)) is refusals.DuplicateKey


def test_one_test_in_two_contracts_is_refused(tmp_path: Path) -> None:
    """Row keys begin with the test, so a test belongs to one contract."""
    contracts = (contract(), {**contract(), "id": "C-B"})
    path = write_run(tmp_path / "run.jsonl", contracts=contracts)
    assert type(refused(path)) is refusals.DuplicateKey


def test_a_row_of_an_undeclared_environment_is_refused(tmp_path: Path) -> None:
    """Nobody could say where it ran."""
    path = write_run(tmp_path / "run.jsonl", (row(environment="env-000000000000"),))
    assert type(refused(path)) is refusals.UnknownEnvironment


def test_an_environment_that_is_not_what_its_id_says_is_refused(tmp_path: Path) -> None:
    """The id is a hash of the description: a changed version shows."""
    path = write_run(tmp_path / "run.jsonl")
    tamper(path, "environment", lambda b: b["packages"].update(torch="2.99"))
    assert type(refused(path)) is refusals.UnknownEnvironment


def test_a_row_of_an_undeclared_contract_is_refused(tmp_path: Path) -> None:
    """Its bounds would come from nowhere."""
    path = write_run(tmp_path / "run.jsonl", (row(contract="C-X"),))
    assert type(refused(path)) is refusals.UnknownContract


@pytest.mark.parametrize(
    "changes",
    [
        {"test": "TEST-X", "key": "TEST-X[cpu-f32]"},
        {"key": "TEST-A[cpu-f64]"},
        {"key": "TEST-A[cpu-f32]!drop-bias"},
        {"key": "TEST-A"},
        {"scale": "reduced"},
        {"falsifier": "falsifiers.eval:falsify_other"},
    ],
)
def test_a_row_that_no_contract_declares_is_refused(tmp_path: Path, changes: Body) -> None:
    """Test, case, key, scale and falsifier are the contract's."""
    path = write_run(tmp_path / "run.jsonl", (row(**changes),))
    assert type(refused(path)) is refusals.UnknownTest


def test_a_defect_that_the_test_does_not_declare_is_refused(tmp_path: Path) -> None:
    """Teeth count only where they were promised."""
    path = write_run(tmp_path / "run.jsonl", (row("caught", defect="other"),))
    assert type(refused(path)) is refusals.UnknownTest


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("row", lambda b: b.update(started="2026-01-02T07:59:59Z")),
        ("row", lambda b: b.update(started="2026-13-02T08:00:00Z")),
        ("row", lambda b: b.update(started="2999-01-02T08:00:00Z")),
        ("footer", lambda b: b.update(finished="2026-01-02T07:00:00Z")),
    ],
)
def test_times_that_run_backwards_are_refused(tmp_path: Path, kind: str, change: Change) -> None:
    """A row before its run, after its end, an end before the start, and a month 13."""
    path = write_run(tmp_path / "run.jsonl")
    tamper(path, kind, change)
    assert type(refused(path)) is refusals.ClockOrder


def plant(**changes: Any) -> Body:
    """A caught row whose plant is not as it should be."""
    body = {"reached": 3, "changed": 2, "canary": "same", **changes}
    return row("caught", defect="drop-bias", plant=body)


INCONSISTENT = {
    "held with a failing comparison": row(observed=2.0),
    "held without a comparison": row(comparisons=[]),
    "held with a claim of nobody": row(comparisons=[comparison(claim="c2")]),
    "held with one claim too many": row(comparisons=[comparison(), comparison(claim="c9")]),
    "held with a reason": row(reason=reason()),
    "falsified with all holding": row("falsified", observed=0.5),
    "falsified without a comparison": row("falsified", comparisons=[]),
    "caught with all holding": row("caught", defect="drop-bias", observed=0.5),
    "survived with a failing comparison": row("survived", defect="drop-bias", observed=2.0),
    "not run without a reason": row("not_run", reason=None),
    "broken without a reason": row("broken", reason=None),
    "inconclusive without a reason": row("inconclusive", reason=None),
    "NaN that holds": row(comparisons=[comparison(math.nan, holds=True)]),
    "infinite bound that holds": row(comparisons=[comparison(0.5, math.inf, holds=True)]),
    "< that holds on equality": row(comparisons=[comparison(1.0, op="<", holds=True)]),
    "== that holds on neighbours": row(comparisons=[comparison(1.0 + 2**-52, op="==", holds=True)]),
    "in that holds outside": row(
        comparisons=[comparison("c", ["a", "b"], op="in", slack=None, margin=None, holds=True)]
    ),
    "contains that does not": row(comparisons=[comparison("abc", "x", op="contains", holds=True)]),
    "matches that does not": row(comparisons=[comparison("abc", "^x", op="matches", holds=True)]),
    "an operator that is none": row(comparisons=[{**comparison(), "op": "~"}]),
    "a comparison across types": row(comparisons=[{**comparison(), "observed": "text"}]),
    "a pattern that is none": row(
        comparisons=[{**comparison("a", "a", "=="), "op": "matches", "bound": "("}]
    ),
    "failing that would hold": row(
        "falsified", comparisons=[comparison(2.0), comparison(0.5, holds=False)]
    ),
    "teeth without a defect": row("caught", kind="teeth"),
    "a claim under a defect": row("caught", defect="drop-bias", kind="claim"),
    "a claim that is caught": row("caught"),
    "teeth that held": row("held", defect="drop-bias"),
    "teeth that are inconclusive": row("inconclusive", defect="drop-bias"),
    "a claim with a plant": row(plant={"reached": 1, "changed": 1, "canary": "same"}),
    "caught, never reached": plant(reached=0),
    "caught, nothing changed": plant(changed=0),
    "caught, canary differs": plant(canary="different"),
    "caught, canary not measured": plant(canary="not_measured"),
    "survived, canary not measured": row(
        "survived",
        defect="drop-bias",
        plant={"reached": 1, "changed": 1, "canary": "not_measured"},
    ),
    "a slack of its own": row(comparisons=[comparison(slack=0.75)]),
    "a margin of its own": row(comparisons=[comparison(margin=0.75)]),
    "a margin on an exact comparison": row(comparisons=[comparison(1.0, op="==", margin=0.0)]),
    "a slack of texts": row(comparisons=[comparison("a", "a", "==", slack=0.0)]),
    "numbers without a slack": row(comparisons=[comparison(slack=None, margin=None)]),
    "caught without a plant": row("caught", defect="drop-bias", plant=None),
    "survived, nothing changed": row(
        "survived", defect="drop-bias", plant={"reached": 1, "changed": 0, "canary": "same"}
    ),
}


@pytest.mark.parametrize("name", INCONSISTENT)
def test_a_row_that_contradicts_itself_is_refused(tmp_path: Path, name: str) -> None:
    """No verdict is believed that does not follow from the row's own values."""
    refusal = refused(write_run(tmp_path / "run.jsonl", (INCONSISTENT[name],)))
    assert type(refusal) is refusals.InconsistentRow


@pytest.mark.parametrize("outcome", ["held", "falsified", "caught"])
def test_a_verdict_about_cuda_needs_a_gpu(tmp_path: Path, outcome: str) -> None:
    """Not running there needs none, and a machine with one may reach a verdict."""
    declared = (contract({"cuda-f32": "full"}),)
    defect = "drop-bias" if outcome == "caught" else None
    body = row(outcome, case="cuda-f32", defect=defect)
    refusal = refused(write_run(tmp_path / "a" / "run.jsonl", (body,), contracts=declared))
    assert type(refusal) is refusals.InconsistentRow
    assert f"{outcome} on cuda, but env-" in str(refusal) and "has no GPU" in str(refusal)
    skipped = row("not_run", case="cuda-f32", defect=defect)
    build_run(tmp_path / "b", (skipped,), contracts=declared)
    machine = {**ENVIRONMENT, "gpus": [GPU]}
    build_run(tmp_path / "c", (body,), contracts=declared, environment=machine)


def test_a_held_row_compares_every_claim_of_its_test(tmp_path: Path) -> None:
    """Leaving a claim out is not a way to hold it."""
    body = contract()
    body["tests"][0]["claims"].append({"id": "c2", "expr": "loss >= 0"})
    path = write_run(tmp_path / "run.jsonl", (row(),), contracts=(body,))
    assert "nothing was compared for c2" in str(refused(path))


@pytest.mark.parametrize(
    "sound",
    [
        comparison(1.0),
        comparison("gpu", ["cpu", "gpu"], "in", text="loss in ['cpu', 'gpu']"),
        comparison("a full match", "^a.*h$", "matches", text="loss matches '^a.*h$'"),
        comparison("abc", "b", "contains", text="loss contains 'b'"),
        comparison(True, True, "==", text="loss == true"),
        comparison("loss is NaN", "NaN", "contains", text="loss contains 'NaN'"),
        comparison("NaN", "NaN", "==", text="loss == 'NaN'"),
    ],
)
def test_a_comparison_that_holds_is_not_refused(tmp_path: Path, sound: Body) -> None:
    """The check of comparisons lets each operator hold where it does."""
    declared = (claiming(sound["text"]),)
    run = build_run(tmp_path, (row(comparisons=[sound]),), contracts=declared)
    assert run.rows[0].outcome == "held"


def test_every_refusal_says_file_line_and_remedy(tmp_path: Path) -> None:
    """One sentence where, one what, one what to do."""
    path = write_run(tmp_path / "run.jsonl", (row(observed=2.0),))
    assert str(refused(path)) == (
        f"{path}, line 4: TEST-A[cpu-f32]: held, but a comparison does not hold. What to do: run "
        "it again; if it comes back, report a bug of aprverify or of the subject's adapter."
    )


def test_every_refusal_has_a_test() -> None:
    """A new reason without a test of its own is noticed here."""
    tests = Path(__file__).parent.parent
    folders = ("attacks", "evidence", "gate", "trust")
    files = [path for name in folders for path in (tests / name).glob("test_*.py")]
    said = "\n".join(path.read_text("utf-8") for path in files)
    for refusal in EvidenceRefused.__subclasses__():
        assert refusal.__name__ in said


def test_a_thousand_rows_are_read_within_a_second(tmp_path: Path) -> None:
    """Quick enough to do before every view. CPU time, so that busy neighbours do not count."""
    cases = {f"cpu-{n}": "full" for n in range(1000)}
    path = write_run(
        tmp_path / "run.jsonl",
        tuple(row(case=case) for case in cases),
        contracts=(contract(cases),),
    )
    read_run(path)
    start = time.process_time()
    read_run(path)
    assert time.process_time() - start < 1.0


def test_good_rows_are_good(tmp_path: Path) -> None:
    """What every test above damages is read without damage, interrupted or not."""
    assert build_run(tmp_path / "a", GOOD_ROWS, interrupted=True).footer.interrupted
