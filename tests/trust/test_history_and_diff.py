"""Two runs compared, and many in a row: what is said follows from the rows and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aprverify.cli import main
from aprverify.evidence.changes import Changes, changes_between
from aprverify.evidence.changes_markdown import changes_lines, render_changes
from aprverify.evidence.history import history
from aprverify.evidence.history_markdown import render_history
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from tests.evidence.builder import ENVIRONMENT, NEWER_SHA, Body, contract, reason, row, write_run

CASES = {"cpu-a": "full", "cpu-b": "full"}
KEY = "TEST-A[cpu-a]"


def run_of(path: Path, *rows: Body, day: int = 2, **options: Any) -> Run:
    """A run made on a day."""
    made = tuple({**body, "started": f"2026-01-{day:02}T08:00:01Z"} for body in rows)
    options = {"contracts": (contract(CASES),), "run_id": path.name, **options}
    started = f"2026-01-{day:02}T08:00:00Z"
    return read_run(write_run(path / "run.jsonl", made, started=started, **options))


def compared(tmp_path: Path, before: list[Body], after: list[Body], **later: Any) -> Changes:
    """The difference of two runs of these rows."""
    return changes_between(
        run_of(tmp_path / "a", *before), run_of(tmp_path / "b", *after, day=3, **later)
    )


def kinds(found: Changes) -> dict[str, list[str]]:
    """The entries in each of the lists of outcomes."""
    names = ("new", "fixed", "still_failing", "gone", "other")
    return {n: [c.key for c in getattr(found, n)] for n in names if getattr(found, n)}


def r(outcome: str, **changes: Any) -> Body:
    """A row of the first case."""
    return row(outcome, "cpu-a", **changes)


NOT_RUN = r("not_run")
TEETH = row("caught", "cpu-a", "drop-bias")
SURVIVED = row("survived", "cpu-a", "drop-bias")


@pytest.mark.parametrize(
    ("before", "after", "kind", "worse"),
    [
        ([r("held")], [r("falsified")], "new", True),
        ([], [r("falsified")], "new", True),
        ([NOT_RUN], [r("broken")], "new", True),
        ([TEETH], [SURVIVED], "new", True),
        ([r("falsified")], [r("held")], "fixed", False),
        ([SURVIVED], [TEETH], "fixed", False),
        ([r("falsified")], [r("broken")], "still_failing", False),
        ([r("falsified")], [r("falsified")], "still_failing", False),
        ([r("held")], [], "gone", True),
        ([r("held")], [NOT_RUN], "gone", True),
        ([r("falsified")], [NOT_RUN], "gone", True),
        ([TEETH], [], "gone", True),
        ([NOT_RUN], [r("held")], "other", False),
        ([], [r("held")], "other", False),
        ([NOT_RUN], [], "other", False),
    ],
)
def test_every_change_of_outcome_has_its_place(
    tmp_path: Path, before: list[Body], after: list[Body], kind: str, worse: bool
) -> None:
    """Each in one list, and worse is what fails that did not, or is shown no longer."""
    other = row("held", "cpu-b")
    found = compared(tmp_path, [*before, other], [*after, other])
    key = (before or after)[0]["key"]
    assert kinds(found) == {kind: [key]}
    assert found.worse is worse


def test_two_equal_runs_differ_in_nothing(tmp_path: Path) -> None:
    """Not even in their times."""
    found = compared(tmp_path, [r("held"), TEETH], [r("held"), TEETH])
    assert found == Changes((), (), (), (), (), (), (), (), (), ())


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        (0.2, 0.5, "closer"),
        (0.5, 0.2, "farther"),
        (0.2, 0.39, None),
        (0.001, 0.009, None),
        (0.001, 0.02, "closer"),
        (0.0, 0.02, "closer"),
        (0.5, 3.0, "closer"),
    ],
)
def test_a_value_moved_where_it_uses_another_share_of_its_bound(
    tmp_path: Path, before: float, after: float, where: str | None
) -> None:
    """By more than a factor of two, and not down in the noise below a hundredth of the bound."""
    outcome = "held" if after <= 1 else "falsified"
    found = compared(tmp_path, [r("held", observed=before)], [r(outcome, observed=after)])
    moved = {"closer": found.closer, "farther": found.farther}
    assert {name for name, values in moved.items() if values} == ({where} if where else set())
    if where:
        ((value,),) = [values for values in moved.values() if values]
        assert value.used_before == pytest.approx(before)


def test_another_bound_is_told(tmp_path: Path) -> None:
    """A claim that holds because its bound was raised did not become better."""
    from tests.evidence.builder import comparison

    raised = r("held", comparisons=[comparison(0.5, 4.0)])
    found = compared(tmp_path, [r("held")], [raised])
    assert [(b.key, b.before, b.after) for b in found.bounds] == [(KEY, 1.0, 4.0)]


def test_other_surroundings_are_told_with_the_entries_they_concern(tmp_path: Path) -> None:
    """Subject, contract, files, package and GPU, each by itself."""
    machine = {
        **ENVIRONMENT,
        "packages": {"torch": "2.14.0", "numpy": "2.1.0"},
        "gpus": [{"name": "New GPU", "memory_gib": 1.0, "compute_capability": "9.0"}],
    }
    changed = {**contract(CASES), "sha256": NEWER_SHA}
    found = compared(
        tmp_path,
        [r("held"), row("held", "cpu-b")],
        [r("held"), row("held", "cpu-b", source_id=NEWER_SHA)],
        environment=machine,
        contracts=(changed,),
        subject="another",
    )
    told = {d.what: (d.before, d.after, d.entries) for d in found.surroundings}
    assert told == {
        "subject": ("bundled", "another", 2),
        "contract C-A": ("a" * 12, "b" * 12, 2),
        "files that entries rest on": ("those then", "others", 1),
        "torch": ("2.13.0", "2.14.0", 2),
        "GPUs": ("none", "New GPU", 2),
    }


def test_a_gate_with_another_status_is_told(tmp_path: Path) -> None:
    """By name, for a machine and for a reader; and it is worse only where it got worse."""
    found = compared(tmp_path, [r("held")], [r("falsified")])
    (change,) = found.gates
    assert (change.gate, change.before, change.after) == ("GATE-A", "PENDING", "FALSIFIED")
    assert change.worse
    back = changes_between(read_run(tmp_path / "b"), read_run(tmp_path / "a"))
    assert not back.gates[0].worse
    assert "| GATE-A | FALSIFIED | PENDING |" in "\n".join(changes_lines(back, "##"))


def test_the_first_line_of_a_difference_says_whether_it_is_worse(tmp_path: Path) -> None:
    """In both directions, with what is behind it further down."""
    a = run_of(tmp_path / "a", r("held"))
    b = run_of(tmp_path / "b", r("falsified"), day=3)
    worse = render_changes(a, b, changes_between(a, b))
    assert worse.splitlines()[0] == (
        "**Worse: 1 new failure; 0 still failing, 0 fixed, 1 gate changed status "
        "(1 for the worse), 1 value nearer to the bound.**"
    )
    assert f"`{KEY}`" in worse and "c1: loss \\<= bound" in worse
    better = render_changes(b, a, changes_between(b, a))
    assert better.splitlines()[0] == (
        "**Nothing became worse: 0 still failing, 1 fixed, 1 gate changed status "
        "(0 for the worse).**"
    )


def test_the_exit_status_of_diff_is_documented(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0, 1 and 7; the same for a machine, whose numbers are JSON's own."""
    run_of(tmp_path / "a", r("held"))
    run_of(tmp_path / "b", r("falsified", observed=float("nan")), day=3)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["diff", a, a]) == 0
    assert main(["diff", b, a]) == 0
    assert main(["diff", a, b]) == 1
    capsys.readouterr()
    assert main(["diff", a, b, "--json"]) == 1
    body = json.loads(capsys.readouterr().out)
    assert body["worse"] is True and body["new"][0]["key"] == KEY
    (tmp_path / "b" / "run.jsonl").write_text("")
    assert main(["diff", a, b]) == 7


def three_runs(tmp_path: Path) -> list[Run]:
    """A value that creeps up, a run that did not measure it, and one beyond the bound."""
    return [
        run_of(tmp_path / "r1", r("held", observed=0.2), TEETH, day=2),
        run_of(tmp_path / "r3", r("falsified", observed=2.0), TEETH, day=4),
        run_of(tmp_path / "r2", r("not_run", reason=reason()), day=3),
    ]


def test_a_history_is_in_the_order_of_time(tmp_path: Path) -> None:
    """Whatever order the runs are named in, once each, gaps included."""
    runs = three_runs(tmp_path)
    (series,) = history([*runs, runs[0]], "TEST-A")
    assert (series.key, series.text, series.unit) == (KEY, "loss <= bound", "nats")
    assert [p.run_id for p in series.points] == ["r1", "r2", "r3"]
    assert [p.outcome for p in series.points] == ["held", "not_run", "falsified"]
    assert [p.observed for p in series.points] == [0.2, None, 2.0]
    assert [p.used for p in series.points] == [pytest.approx(0.2), None, pytest.approx(1.5)]


@pytest.mark.parametrize("name", ["C-A", "GATE-A", "INV-A", "TEST-A", KEY])
def test_a_history_is_found_by_every_name_of_a_claim(tmp_path: Path, name: str) -> None:
    """Contract, gate, invariant, test and entry; teeth only by their own key."""
    runs = three_runs(tmp_path)
    assert [s.key for s in history(runs, name)] == [KEY]
    assert [s.key for s in history(runs, f"{KEY}!drop-bias")] == [f"{KEY}!drop-bias"]
    assert history(runs, "TEST") == []


def test_a_history_is_a_table(tmp_path: Path) -> None:
    """One line a run, oldest first."""
    text = render_history("TEST-A", history(three_runs(tmp_path), "TEST-A"))
    lines = [line for line in text.splitlines() if line.startswith("| `r")]
    assert [line.split("|")[1].strip(" `") for line in lines] == ["r1", "r2", "r3"]
    assert "| held | 0.2 | 1 | 0.8 | 20.0% |" in lines[0]


def test_history_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs by name, JSON on request, and an id that nobody has is a usage error with a hint."""
    paths = [str(run.path) for run in three_runs(tmp_path)]
    assert main(["history", "TEST-A", *paths]) == 0
    capsys.readouterr()
    assert main(["history", "TEST-A", *paths, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["points"][0]["observed"] == 0.2
    assert main(["history", "TEST-B", *paths]) == 2
    assert "did you mean TEST-A" in capsys.readouterr().err
    assert main(["history", "TEST-A", str(tmp_path / "none")]) == 7
