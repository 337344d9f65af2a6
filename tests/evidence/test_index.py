"""Several runs as one: which row speaks, what is stale, and what the index says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aprverify.evidence.index import render_index
from aprverify.evidence.merge import merge_runs
from aprverify.evidence.records import Run
from aprverify.evidence.report import render_report
from aprverify.evidence.status import Status, gate_statuses
from aprverify.trust.verify import SIGNATURE_FILE

from .builder import ENVIRONMENT, GPU, NEWER_SHA, SHA, Body, build_run, contract, reason, row

KEY = "TEST-A[cpu-f32]"
TEETH = "TEST-A[cpu-f32]!drop-bias"
MONDAY, TUESDAY = "2026-01-05T08:00:00Z", "2026-01-06T08:00:00Z"


def run_on(tmp_path: Path, day: str, *rows: Body, **options: object) -> Run:
    """A run of one day, its rows included."""
    name = f"run-{day[:10]}"
    rows = tuple({**body, "started": day} for body in rows)
    return build_run(tmp_path / name, rows, started=day, run_id=name, **options)


@pytest.mark.parametrize("order", [1, -1])
def test_the_newest_row_speaks(tmp_path: Path, order: int) -> None:
    """Whatever the order in which the runs are given."""
    runs = [
        run_on(tmp_path, MONDAY, row("falsified")),
        run_on(tmp_path, TUESDAY, row(source_id=NEWER_SHA)),
    ][::order]
    assert merge_runs(runs, None).origins[KEY].row.outcome == "held"


def test_a_row_that_did_not_run_silences_nobody(tmp_path: Path) -> None:
    """A machine without the device says nothing about the entry."""
    runs = [run_on(tmp_path, MONDAY, row()), run_on(tmp_path, TUESDAY, row("not_run"))]
    assert merge_runs(runs, None).origins[KEY].row.outcome == "held"


@pytest.mark.parametrize("outcome", ["falsified", "broken"])
def test_bad_news_does_silence_older_good_news(tmp_path: Path, outcome: str) -> None:
    """Failing and breaking are about the entry."""
    runs = [run_on(tmp_path, MONDAY, row()), run_on(tmp_path, TUESDAY, row(outcome))]
    assert merge_runs(runs, None).origins[KEY].row.outcome == outcome


def test_a_row_about_the_present_files_outweighs_a_newer_one(tmp_path: Path) -> None:
    """As after going back to an earlier version."""
    runs = [
        run_on(tmp_path, MONDAY, row("falsified")),
        run_on(tmp_path, TUESDAY, row(source_id=NEWER_SHA)),
    ]
    merged = merge_runs(runs, {KEY: SHA})
    assert merged.origins[KEY].row.outcome == "falsified"
    assert not merged.stale_keys


def test_a_verdict_about_other_files_outweighs_a_row_that_did_not_run(tmp_path: Path) -> None:
    """The entry is then stale, not unknown."""
    runs = [
        run_on(tmp_path, MONDAY, row(source_id=NEWER_SHA)),
        run_on(tmp_path, TUESDAY, row("not_run")),
    ]
    merged = merge_runs(runs, {KEY: SHA})
    assert merged.origins[KEY].row.outcome == "held"
    assert merged.stale_keys == {KEY}


def test_an_entry_with_older_files_only_is_stale(tmp_path: Path) -> None:
    """And its gate with it; an entry nobody ran is told apart."""
    runs = [run_on(tmp_path, MONDAY, row(), row("caught", defect="drop-bias"))]
    merged = merge_runs(runs, {KEY: NEWER_SHA, TEETH: SHA, "TEST-A[cuda]": SHA})
    assert merged.stale_keys == {KEY}
    assert merged.unseen == {"TEST-A[cuda]"}
    (gate,) = gate_statuses(merged.contracts, merged.rows, merged.stale_keys)
    assert gate.status is Status.STALE


def test_different_verdicts_about_the_same_files_are_a_conflict(tmp_path: Path) -> None:
    """They are shown; a different verdict about other files is progress, not a conflict."""
    monday = run_on(tmp_path, MONDAY, row("falsified"))
    same = run_on(tmp_path, TUESDAY, row())
    assert merge_runs([monday, same], None).conflicts == {KEY: ("falsified", "held")}
    assert f"- `{KEY}`: falsified, held" in render_index([monday, same], None)
    changed = run_on(tmp_path / "b", TUESDAY, row(source_id=NEWER_SHA))
    assert not merge_runs([monday, changed], None).conflicts


def test_rows_of_a_case_that_was_dropped_are_left_out(tmp_path: Path) -> None:
    """The newest contract says what there is to test."""
    old = run_on(
        tmp_path, MONDAY, row("falsified", case="old"), contracts=(contract({"old": "full"}),)
    )
    new = run_on(tmp_path, TUESDAY, row())
    assert list(merge_runs([old, new], None).origins) == [KEY]


def test_two_machines_make_one_gate(tmp_path: Path) -> None:
    """Rows of a CPU run and of a GPU run merge; the index says where each ran."""
    declared = contract({"cpu-f32": "full", "cuda-bf16": "full"})
    cpu = run_on(
        tmp_path,
        MONDAY,
        row(),
        row("caught", defect="drop-bias"),
        row("not_run", case="cuda-bf16"),
        contracts=(declared,),
    )
    cuda = run_on(
        tmp_path,
        TUESDAY,
        row(case="cuda-bf16"),
        contracts=(declared,),
        environment={**ENVIRONMENT, "gpus": [GPU]},
    )
    where = "1 × Some GPU<br>Some CPU<br>2026-01-05 to 2026-01-06"
    assert f"| **GATE-A** | DISCHARGED | +0.5 | {where} | 1/1 |" in render_index([cpu, cuda], None)


def test_a_gate_that_never_ran_is_in_the_index(tmp_path: Path) -> None:
    """With those words."""
    index = render_index([run_on(tmp_path, MONDAY, row("not_run"))], None)
    assert "| *C-A* |  |  |  |  |\n| **GATE-A** | PENDING | – | never run | 0/1 |" in index


def test_the_index_believes_no_signature_that_it_did_not_check(tmp_path: Path) -> None:
    """Whatever lies beside a run; and it does not call such a run unsigned."""
    runs = [run_on(tmp_path, MONDAY, row()), run_on(tmp_path, TUESDAY, row())]
    runs[0].path.with_name(SIGNATURE_FILE).write_text("{}")
    assert (
        render_index(runs, None)
        .splitlines()[0]
        .endswith(
            "who made the runs (1 unsigned; signature present at 1 but not checked here: "
            "`aprverify gate --require-signed` does)."
        )
    )


def test_the_first_line_of_the_index_says_what_is_not_shown(tmp_path: Path) -> None:
    """Open gates first; whether age was judged; who made it."""
    run = run_on(tmp_path, MONDAY, row())
    assert render_index([run], None).splitlines()[0] == (
        "**Not shown:** 1 of 1 gate not DISCHARGED; whether the files changed since (`aprverify "
        "evidence index` prints how many rows are stale); machines and subjects other than those "
        "named below; who made the runs (they are unsigned)."
    )
    foreign = reason("subject", "drop-bias patches another trainer")
    other = run_on(tmp_path, TUESDAY, row(), row("not_run", defect="drop-bias", reason=foreign))
    assert "1 planted defect does not apply to the subject" in render_index([other], None)
    judged = render_index([run], {KEY: SHA, TEETH: SHA}).splitlines()[0]
    assert "1 entry that no run has a row of" in judged


def test_the_index_lists_each_run_with_its_hash(tmp_path: Path) -> None:
    """And links its report."""
    run = run_on(tmp_path, MONDAY, row())
    index = render_index([run], None)
    assert "[run-2026-01-05](runs/run-2026-01-05/report.md)" in index
    assert run.sha256 in index


def test_the_index_does_not_depend_on_the_order_of_runs(tmp_path: Path) -> None:
    """Folders are listed in any order by some file systems."""
    runs = [run_on(tmp_path, MONDAY, row()), run_on(tmp_path, TUESDAY, row("falsified"))]
    assert render_index(runs, None) == render_index(runs[::-1], None)


def test_no_runs_make_an_index_that_says_so() -> None:
    """It is the state of a new suite, and no error."""
    assert "No runs yet." in render_index([], None)


def test_subjects_are_kept_apart(tmp_path: Path) -> None:
    """A held row of one trainer does not stand in for a falsified row of another."""
    ours = run_on(tmp_path, MONDAY, row("falsified"))
    newer = run_on(tmp_path, TUESDAY, row("held"))
    theirs = replace(newer, header=replace(newer.header, subject="theirs"))
    index = render_index([ours, theirs], None)
    assert "## Gates of theirs" in index
    assert "| FALSIFIED |" in index


@pytest.mark.parametrize("has_other_lane", [True, False])
@pytest.mark.parametrize(("later", "status"), [(NEWER_SHA, "STALE"), (SHA, "DISCHARGED")])
def test_rows_of_two_versions_make_no_gate_together(
    tmp_path: Path, later: str, status: str, has_other_lane: bool
) -> None:
    """A GPU that saw the old trainer does not complete what a CPU shows of the new one.

    Whether the later run has rows of the other lane that did not run, or none of it at all.
    """
    contracts = (contract({"cpu-f32": "full", "cuda-bf16": "full"}),)
    both = (row(), row("caught", defect="drop-bias"), row(case="cuda-bf16"))
    gpu = {**ENVIRONMENT, "gpus": [GPU]}
    monday = run_on(tmp_path / "gpu", MONDAY, *both, contracts=contracts, environment=gpu)
    cpu = [row(source_id=later), row("caught", defect="drop-bias", source_id=later)]
    if has_other_lane:
        cpu.append(row("not_run", case="cuda-bf16", source_id=later))
    tuesday = run_on(tmp_path / "cpu", TUESDAY, *cpu, contracts=contracts)
    assert "| **GATE-A** | DISCHARGED |" in render_index([monday], None)
    for runs in ([monday, tuesday], [tuesday, monday]):
        assert f"| **GATE-A** | {status} |" in render_index(runs, None)


def test_a_met_gate_is_one_of_the_contracts_that_were_recorded(tmp_path: Path) -> None:
    """There may be more contracts by now, in the checkout or in a later run."""
    run = run_on(tmp_path, MONDAY, row(), row("caught", defect="drop-bias"))
    yes = "**Yes:** the ship-blocking gate of the contracts recorded in"
    assert f"{yes} these runs is discharged." in render_index([run], None)
    assert f"{yes} this run is discharged." in render_report(run)


def test_what_changed_is_told_between_runs_of_one_lane(tmp_path: Path) -> None:
    """A GPU's run between two of a CPU is no news about the CPU's entries."""
    both = (contract({"cpu-f32": "full", "cuda-bf16": "full"}),)
    gpu = {**ENVIRONMENT, "gpus": [GPU]}
    runs = [
        run_on(tmp_path, MONDAY, row(), contracts=both),
        run_on(tmp_path, TUESDAY, row(case="cuda-bf16"), contracts=both, environment=gpu),
        run_on(tmp_path, "2026-01-07T08:00:00Z", row("falsified"), contracts=both),
    ]
    told = next(line for line in render_index(runs, None).splitlines() if "What changed?" in line)
    assert runs[0].header.run_id in told and "1 new failure" in told
    assert runs[1].header.run_id not in told
    alone = render_index(runs[:2], None)
    assert "No earlier run has verdicts on the same kind of devices" in alone
