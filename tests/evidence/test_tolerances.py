"""Tolerances on trial: what separates, what is vacuous, and what nobody put to the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aprverify.campaign.results import Campaign
from aprverify.evidence.tolerances import LIMIT, SEPARATES, UNTRIED, VACUOUS, Trial, trials_of
from aprverify.evidence.tolerances_markdown import render_tolerances
from tests.evidence.builder import NEWER_SHA, SHA, build_run, comparison, contract, row

Body = dict[str, Any]


def _row(outcome: str, observed: float, error: int, defect: str | None = None) -> Body:
    exact = comparison(error, 0, "==", claim="c2", text="error == 0", unit="")
    compared = [comparison(observed), exact]
    measures = {"loss": observed, "error": error}
    return row(outcome, defect=defect, comparisons=compared, measures=measures)


def _clean(observed: float) -> Body:
    return _row("held", observed, 0)


def _planted(observed: float, defect: str) -> Body:
    """A defect that another comparison caught as well."""
    return _row("caught", observed, 1, defect)


def _trial(tmp_path: Path, *rows: Body, campaigns: tuple[Campaign, ...] = ()) -> Trial:
    defects = tuple(body["defect"] for body in rows if body["defect"])
    declared = contract(counter_examples=defects or ("drop-bias",))
    declared["tests"][0]["claims"].append({"id": "c2", "expr": "error == 0"})
    run = build_run(tmp_path, tuple(rows), contracts=(declared,))
    found = trials_of([run], campaigns).found
    return next(trial for trial in found if trial.claim == "c1")


def test_a_tolerance_between_clean_and_planted_separates(tmp_path: Path) -> None:
    """The smallest effect that failed it counts, and both margins are factors."""
    trial = _trial(
        tmp_path,
        _clean(0.1),
        _planted(8.0, "large"),
        _planted(4.0, "small"),
    )
    assert trial.verdict == SEPARATES
    assert (trial.below, trial.above) == (pytest.approx(10), 4.0)
    assert trial.effect is not None and trial.effect.where.startswith("small")
    assert trial.thinnest == 4.0 and trial.through is None


def test_one_that_lets_all_that_was_planted_through_is_vacuous(tmp_path: Path) -> None:
    """The defect moved the quantity far beyond clean, and only another claim caught it."""
    trial = _trial(tmp_path, _clean(0.1), _planted(0.9, "hidden"))
    assert trial.verdict == VACUOUS and trial.through is not None
    assert trial.through.where.startswith("hidden")


def test_a_defect_that_moves_nothing_says_nothing(tmp_path: Path) -> None:
    """Within twice the floor lies what another seed does."""
    trial = _trial(tmp_path, _clean(0.1), _planted(0.15, "elsewhere"))
    assert trial.verdict == UNTRIED and trial.through is None


def test_a_bound_that_is_attained_is_a_limit(tmp_path: Path) -> None:
    """Noise never stands exactly at its bound."""
    assert _trial(tmp_path, _clean(1.0)).verdict == LIMIT


def _campaign(used: list[float], source_id: str = SHA) -> Campaign:
    worst = {"seed": 7, "observed": max(used), "op": "<=", "bound": 1.0}
    lot: Body = {
        "test": "TEST-A",
        "case": "device=cuda",
        "verdicts": len(used),
        "compared": [{"used": used, "worst": worst}],
    }
    test: Body = {
        "source_id": source_id,
        "comparisons": [{"claim": "c1", "text": "loss <= bound"}],
    }
    session: Body = {"campaign": "one", "device": "cuda", "started": "2026-01-02T08:00:00Z"}
    return Campaign(Path("campaign.jsonl"), (session,), {"TEST-A": test}, (lot,), ())


def test_a_campaign_raises_the_floor(tmp_path: Path) -> None:
    """The worst of all seeds is the floor, wherever it was seen; beyond the bound is vacuous."""
    rows = (_clean(0.1), _planted(4.0, "small"))
    trial = _trial(tmp_path / "a", *rows, campaigns=(_campaign([0.2, 0.5, 0.3]),))
    assert trial.verdict == SEPARATES and trial.below == 2.0 and trial.clean == 4
    assert trial.floor is not None and trial.floor.where == "device=cuda, seed 7"
    assert trial.devices == {"cpu", "cuda"}
    alarm = _trial(tmp_path / "b", *rows, campaigns=(_campaign([0.2, 1.5]),))
    assert alarm.verdict == VACUOUS


def test_what_is_about_another_version_of_the_files_does_not_count(tmp_path: Path) -> None:
    """A campaign of a changed contract had other tolerances; the page says what was left out."""
    rows = (_clean(0.1), _planted(4.0, "small"))
    campaigns = (_campaign([0.9], NEWER_SHA),)
    trial = _trial(tmp_path / "a", *rows, campaigns=campaigns)
    assert trial.below == pytest.approx(10)
    run = build_run(tmp_path / "b", (row(),), contracts=(contract(counter_examples=()),))
    trials = trials_of([run], campaigns)
    assert trials.stale_campaigns == ("TEST-A in one",)
    assert "1 test of campaigns about other versions" in render_tolerances(trials, [run], campaigns)


def test_the_page_lists_the_thinnest_margin_first(tmp_path: Path) -> None:
    """And its first line says what it does not show."""
    values = {"first": 0.1, "second": 0.5, "third": 0.2}
    claims = [{"id": name, "expr": f"{name} <= bound"} for name in values]
    compared = [
        comparison(value, claim=name, text=f"{name} <= bound") for name, value in values.items()
    ]
    declared = contract(counter_examples=())
    declared["tests"][0]["claims"] = claims
    run = build_run(
        tmp_path, (row(comparisons=compared, measures=dict(values)),), contracts=(declared,)
    )
    page = render_tolerances(trials_of([run], []), [run], [])
    assert page.startswith("**Not shown:** 3 of 3 tolerances that no declared defect puts")
    assert page.index("second:") < page.index("third:") < page.index("first:")
