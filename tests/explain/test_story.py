"""The story of a run: what failed, told once, with what narrows it down."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from aprverify.contract.lint import load_suite
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from aprverify.explain.divergence import divergence
from aprverify.explain.others import MEANING
from aprverify.explain.render import render
from aprverify.explain.reproduce import selection
from aprverify.explain.story import Story
from aprverify.explain.tell import UnknownName, tell
from aprverify.plan import make_plan
from aprverify.plugin.selection import keywords, rewrite
from aprverify.suite import find_suite
from tests.evidence.builder import Body, build_run, contract, reason, row, series
from tests.views.runs import committed

from .runs import CLEAN, KNOWN, broken_by_plant, caught, contracts, evidence, failing, named

SOURCE = {"dirty": False, "aprverify_version": "1", "aprverify_sha256": "a" * 64}


def flat(story: Story) -> str:
    """The story as one line: where lines break is not what is tested."""
    return " ".join(render(story).split())


def run_of(folder: Path, *rows: Body, names: tuple[str, ...] = ("A",), **options: object) -> Run:
    return build_run(folder, rows, contracts=contracts(*names), **options)


def test_a_failure_is_told_with_what_it_guards_against_and_how_to_see_it_again(
    tmp_path: Path,
) -> None:
    """Claim, incident, values, what held, cause, and commands that can be pasted."""
    (body,) = contracts()
    body |= {"motivation": "A loss was once made up.", "references": ["Doe 2020"]}
    body |= {"invariants": [{"id": "INV-A", "rule": "No loss is made up"}]}
    run = build_run(
        tmp_path / "run", (failing(41.0), CLEAN[1]), contracts=(body,),
        source={**SOURCE, "commit": "c" * 40, "dirty": True},
    )  # fmt: skip
    (failure,) = tell(run, [evidence(tmp_path / "known")]).failures
    text = flat(tell(run, [evidence(tmp_path / "known2")]))
    assert failure.causes[0].defect == "eps" and failure.causes[0].alike
    for told in (
        "Eval loss is near ln V", "A loss was once made up.", "Doe 2020", "No loss is made up",
        "loss <= bound: 41 <= 1 nats", "the loss function | its mean", "eps: likeness 1.00",
        "pytest --subject=bundled -- 'contracts/a.yaml::falsify_eval[cpu-a]'",
        "aprverify verify --subject=bundled --teeth none -k 'TEST-A and ", "1 other case held",
        f"{'c' * 40} with uncommitted changes", "Some CPU", "torch 2.13.0",
    ):  # fmt: skip
        assert told in text, told


def test_a_file_that_nobody_ships_is_not_said_to_be_fetched(tmp_path: Path) -> None:
    """A variable may have named it, and a merged run's command names none: both ways are told."""
    run = run_of(tmp_path / "run", {**failing(41.0), "assets": {"weights": "d" * 64}}, CLEAN[1])
    (failure,) = tell(run, []).failures
    (need,) = failure.reproduction.needs
    assert need.startswith(f"asset weights, SHA-256 {'d' * 64}: ")
    assert need.endswith("if a package ships it; else name its file, --asset weights=FILE")


def test_an_older_run_is_silent_about_the_incident_and_the_story_says_so(tmp_path: Path) -> None:
    """Nothing is made up, and nothing is read from elsewhere."""
    text = flat(tell(run_of(tmp_path, failing(2.0), CLEAN[1])))
    assert "the run does not record it; C-A says it" in text


def test_the_story_depends_on_the_run_alone(tmp_path: Path) -> None:
    """The same bytes in another folder tell the same, byte for byte, in whatever order."""
    run = run_of(tmp_path / "a", failing(2.0), failing(2.0, "cpu-b"), caught("eps", 40.0))
    known = [evidence(tmp_path / "x"), run_of(tmp_path / "y", *CLEAN, run_id="later")]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    other = read_run(tmp_path / "b")
    assert render(tell(run, known)) == render(tell(other, known[::-1]))
    assert str(tmp_path) not in render(tell(run, known))


def test_one_cause_is_told_once(tmp_path: Path) -> None:
    """Cases that fail alike, and tests that look like the same planted defect, are one failure."""
    rows = [failing(41.0), failing(44.0, "cpu-b")]
    rows += [named("B", failing(39.0)), named("B", CLEAN[1])]
    run = run_of(tmp_path / "run", *rows, names=("A", "B"))
    known = (*KNOWN, *(named("B", body) for body in KNOWN))
    (failure,) = tell(run, [evidence(tmp_path / "known", known, "A", "B")]).failures
    assert [len(test.failed) for test in failure.tests] == [2, 1]
    assert failure.causes[0].defect == "eps"


def test_two_causes_are_told_apart(tmp_path: Path) -> None:
    """And each names the other as what failed with it."""
    rows = [failing(41.0), CLEAN[1], named("B", failing(9000.0)), named("B", CLEAN[1])]
    run = run_of(tmp_path / "run", *rows, names=("A", "B"))
    known = (*KNOWN, *(named("B", body) for body in KNOWN))
    failures = tell(run, [evidence(tmp_path / "known", known, "A", "B")]).failures
    assert [f.causes[0].defect for f in failures] == ["eps", "theta"]
    assert failures[0].surroundings.failed_other == ("TEST-B",)


def test_what_looks_like_nothing_planted_is_said_to(tmp_path: Path) -> None:
    """A likeness that is none is not dressed up as one."""
    run = run_of(tmp_path / "run", failing(1e30), CLEAN[1])
    text = flat(tell(run, [evidence(tmp_path / "known")]))
    assert "none of the 3 planted defects looks like this" in text
    assert "likeness" not in text.partition("looks like this")[2]
    assert "is known to this run" in flat(tell(run))


def test_what_held_rules_out_what_it_would_have_caught(tmp_path: Path) -> None:
    """A test that catches a defect and held speaks against that defect, however alike it is."""
    rows = [failing(40.0), CLEAN[1], named("B", CLEAN[0]), named("B", CLEAN[1])]
    run = run_of(tmp_path / "run", *rows, names=("A", "B"))
    known = (*KNOWN, *(named("B", b) for b in (*CLEAN, caught("eps", 3.0))))
    (failure,) = tell(run, [evidence(tmp_path / "known", known, "A", "B")]).failures
    out = {cause.defect: cause.ruled_out_by for cause in failure.causes}
    assert out == {"drop-bias": None, "theta": None, "eps": "TEST-B[cpu-a]"}
    assert failure.causes[-1].defect == "eps" and not failure.causes[-1].alike
    text = flat(tell(run, [evidence(tmp_path / "known2", known, "A", "B")]))
    assert "eps: TEST-B[cpu-a] catches it, and held" in text


def test_a_defect_that_changes_nothing_is_already_there(tmp_path: Path) -> None:
    """Only if it is known to change something where nothing is wrong."""
    run = run_of(tmp_path / "run", failing(2.0), CLEAN[1], broken_by_plant("theta"))
    (failure,) = tell(run, [evidence(tmp_path / "known")]).failures
    assert failure.already_there == ("theta",)
    assert tell(run).failures[0].already_there == ()


def test_parameters_that_tell_failing_cases_from_held_ones_are_named(tmp_path: Path) -> None:
    """One that both have says nothing."""
    rows = [
        {**failing(2.0), "case": {"device": "cpu", "arch": "big", "seed": 0}},
        {**CLEAN[1], "case": {"device": "cpu", "arch": "small", "seed": 0}},
        {**row(case="cpu-c"), "case": {"device": "cpu", "arch": "small", "seed": 1}},
    ]
    declared = contract(dict.fromkeys(("cpu-a", "cpu-b", "cpu-c"), "full"))
    (failure,) = tell(build_run(tmp_path, tuple(rows), contracts=(declared,))).failures
    assert failure.tests[0].only_with == ("arch=big (held with small)",)


def test_a_series_says_where_it_left_its_bound_first(tmp_path: Path) -> None:
    """Not where it is largest."""
    points = series(name="depth", x=[0, 1, 2, 3], y=[0.5, 0.9, 3.0, 9.0], claim="c1")
    body = row("falsified", case="cpu-a", observed=9.0, series=[points])
    run = run_of(tmp_path, body, CLEAN[1])
    (told,) = divergence(run.rows[0], None)
    assert "first beyond its bound at 2 (3 against 1, within its bound until 1); 2 of 4" in told


def test_a_worst_is_told_of_what_failed_only(tmp_path: Path) -> None:
    """The largest of errors that are all within their bound is no finding."""
    measures = {"loss": 2.0, "worst_loss": "layers.3.q", "worst_norm": "layers.1", "norm": 0.1}
    run = run_of(tmp_path, row("falsified", case="cpu-a", measures=measures), CLEAN[1])
    (told,) = divergence(run.rows[0], None)
    assert told.startswith("worst_loss: layers.3.q") and "need not be the first" in told


def test_a_run_without_failures_names_what_came_closest(tmp_path: Path) -> None:
    """And says that nothing failed."""
    text = flat(tell(run_of(tmp_path, row(case="cpu-a", observed=0.9), CLEAN[1])))
    assert "Nothing failed. What came closest to failing:" in text
    assert "0.9 <= 1 nats, +0.1 of the tolerance left" in text


def test_survivors_and_what_has_no_verdict_are_told_in_words_of_their_own(tmp_path: Path) -> None:
    """What it means, and what to do; entries with one reason are told once."""
    rows = [
        row("held", case="cpu-a"),
        row("broken", case="cpu-b", reason=reason("setup", "no tokenizer", "fetch it")),
        row("survived", case="cpu-a", defect="eps", observed=0.8),
        row("not_run", case="cpu-a", defect="theta", reason=reason("asset", "no file", "get it")),
        row("not_run", case="cpu-b", defect="theta", reason=reason("asset", "no file", "get it")),
    ]
    story = tell(run_of(tmp_path, *rows, caught("drop-bias", 2.0)))
    assert [(o.kind, len(o.entries)) for o in story.others] == [
        ("survived", 1), ("broken", 1), ("not_run", 2),
    ]  # fmt: skip
    text = flat(story)
    assert "no teeth against this defect" in text and "+0.2 of the tolerance left" in text
    assert "no tokenizer" in text and "fetch it" in text and "No claim was falsified." in text


def test_every_reason_of_the_schema_has_words_of_its_own() -> None:
    """None falls through to a default, or to an error at night."""
    schema = Path(__file__).resolve().parents[2] / "aprverify" / "schemas" / "run.schema.json"
    properties = json.loads(schema.read_text())["$defs"]["row"]["properties"]
    kinds = properties["reason"]["oneOf"][1]["properties"]["kind"]["enum"]
    assert set(kinds) == set(MEANING) and len(set(MEANING.values())) == len(kinds)


def test_an_id_narrows_the_story_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    """By contract, gate, invariant, test, or a whole key."""
    rows = [failing(41.0), CLEAN[1], named("B", failing(9000.0)), named("B", CLEAN[1])]
    run = run_of(tmp_path, *rows, names=("A", "B"))
    for name in ("C-B", "GATE-B", "INV-B", "TEST-B", "TEST-B[cpu-a]"):
        (failure,) = tell(run, name=name).failures
        assert failure.key == "TEST-B[cpu-a]"
        assert failure.surroundings.failed_other == ("TEST-A",)
    assert tell(run, name="TEST-B[cpu-b]").failures == ()
    with pytest.raises(UnknownName):
        tell(run, name="TEST-C")


def test_commands_of_other_builds_are_not_advised(tmp_path: Path) -> None:
    """`bisect` needs a commit at which the entry held, of a clean checkout."""
    run = run_of(tmp_path / "bad", failing(2.0), CLEAN[1], source={**SOURCE, "commit": "b" * 40})
    good = run_of(tmp_path / "good", *CLEAN, source={**SOURCE, "commit": "a" * 40})
    both = frozenset({"localize", "bisect"})
    assert tell(run, [good]).failures[0].next == ("aprverify list TEST-A",)
    assert tell(run, [good], commands=both).failures[0].next[:2] == (
        "aprverify localize TEST-A --case=cpu-a --subject=bundled",
        f"aprverify bisect {'a' * 40} {'b' * 40} TEST-A",
    )
    (only,) = tell(run, commands=both).failures
    assert only.next[0].startswith("aprverify localize TEST-A ")
    assert len(tell(run, commands=both).failures[0].next) == 2


def test_evidence_of_another_subject_is_not_compared_with(tmp_path: Path) -> None:
    """Another trainer has other clean values; the story says that it was left out."""
    run = run_of(tmp_path / "run", failing(40.0), CLEAN[1], subject="theirs")
    story = tell(run, [evidence(tmp_path / "known")])
    assert story.failures[0].causes == () and "was not compared with" in story.notes[-1]


def test_the_selection_of_an_entry_selects_nothing_else() -> None:
    """Every ninth entry of the committed CPU run, by the suite's own ``-k``."""
    suite = find_suite("bundled")
    entries = make_plan(load_suite(suite).contracts, teeth="declared")
    run = next(r for r in committed() if r.header.run_id == "20261123T190911Z-698ac0")
    known = {entry.key: keywords(entry, ()) for entry in entries}
    by_test: dict[str, list[str]] = {}
    for entry in entries:
        by_test.setdefault(entry.test.id.partition(".")[0], []).append(entry.key)
    rows = [found for found in run.rows if found.key in known]
    assert len(rows) > 600
    for found in rows[::9]:
        expression, others = selection(run, found)
        words = rewrite(expression, entries)[0].split(" and ")
        near = by_test[found.test.partition(".")[0]]
        selected = {key for key in near if all(_matches(word, known[key]) for word in words)}
        # `--teeth none` plants nothing, and a planted defect is named.
        selected = {key for key in selected if ("]!" in key) == (found.defect is not None)}
        assert found.key in selected
        assert len(selected) == 1 + others, (expression, selected)
        assert not others or not all(map(str.isalnum, map(str, found.case.values())))


def _matches(word: str, having: set[str]) -> bool:
    name = word.removeprefix("not ")
    return (name in having) != word.startswith("not ")


def test_the_comparison_that_fails_is_told_with_its_margin(tmp_path: Path) -> None:
    """In units of the tolerance."""
    (failure,) = tell(run_of(tmp_path, failing(7.0), CLEAN[1])).failures
    (broken,) = failure.tests[0].broken
    assert broken.observed == "7" and broken.margin == pytest.approx(-6.0)
