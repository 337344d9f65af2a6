"""Causes that a run names: read as written, told with doubts, refused where they contradict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aprverify.evidence import refusals
from aprverify.evidence.localized import first_fault, places
from aprverify.evidence.reader import read_run

from .builder import Body, build_run, contract, row, tamper, write_run


def localization(**changes: Any) -> Body:
    """Of a bias that is not added."""
    first = {
        "phase": "forward",
        "where": "layers.7.q_proj",
        "tensor": "out",
        "times_bound": 412.0,
        "fault": "bias not added",
        "seen_in": "logits",
        **changes.pop("first", {}),
    }
    said = f"{first['where']}: {first['fault']} (out: error {first['times_bound']} × bound)"
    return {
        "ending": "named", "said": said, "first": first, "more": 0, "outcome": "falsified",
        "notes": [], "seconds": 1.5, **changes,
    }  # fmt: skip


def unnamed(ending: str, said: str, **changes: Any) -> Body:
    """Of an entry for which no place is named."""
    outcome = "held" if ending == "nothing" else None
    return {**localization(), "ending": ending, "said": said, "first": None, "outcome": outcome,
            **changes}  # fmt: skip


def test_a_cause_is_read_as_it_was_written(tmp_path: Path) -> None:
    """An error without bound among them; a row without one has none."""
    body = localization(first={"times_bound": float("inf")})
    run = build_run(tmp_path, (row("falsified", localization=body),))
    seen = run.rows[0].localization
    assert seen is not None and seen.first is not None
    assert (seen.first.where, seen.first.times_bound) == ("layers.7.q_proj", float("inf"))
    assert build_run(tmp_path / "other", (row(),)).rows[0].localization is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first": None}, "named, without a fault"),
        ({"ending": "nothing"}, "nothing, with a fault"),
        ({"outcome": None}, "its claims ended None"),
        ({"said": "layers.8.k_proj: fine"}, "another place"),
        ({"ending": "failed", "first": None}, "failed, and its claims ended falsified"),
        ({"ending": "nothing", "first": None, "more": 2}, "yet 2 after it"),
    ],
)
def test_a_cause_that_contradicts_itself_is_refused(
    tmp_path: Path, change: Body, said: str
) -> None:
    """With the row and the reason."""
    path = write_run(tmp_path / "run.jsonl", (row("falsified", localization=localization()),))
    tamper(path, "row", lambda body: body["localization"].update(change))
    with pytest.raises(refusals.InconsistentRow, match=said):
        read_run(path)


@pytest.mark.parametrize("times", [1.0, "NaN", -3.0])
def test_a_named_place_is_beyond_its_bound(tmp_path: Path, times: Any) -> None:
    """Or somebody wrote it in."""
    path = write_run(tmp_path / "run.jsonl", (row("falsified", localization=localization()),))
    tamper(path, "row", lambda body: body["localization"]["first"].update(times_bound=times))
    with pytest.raises(refusals.InconsistentRow, match="of its bound"):
        read_run(path)


@pytest.mark.parametrize("found", [row(), row("caught", defect="drop-bias"), row("not_run")])
def test_only_a_falsified_claim_names_a_cause(tmp_path: Path, found: Body) -> None:
    """A planted defect is no news, and what held has none."""
    path = write_run(tmp_path / "run.jsonl", ({**found, "localization": localization()},))
    with pytest.raises(refusals.InconsistentRow, match="only a falsified claim does"):
        read_run(path)


@pytest.mark.parametrize(
    "change",
    [{"ending": "guessed"}, {"seconds": -1}, {"said": ""}, {"more": 1.5}, {"verdict": "held"}],
)
def test_another_form_is_refused(tmp_path: Path, change: Body) -> None:
    """By the schema."""
    path = write_run(tmp_path / "run.jsonl", (row("falsified", localization=localization()),))
    tamper(path, "row", lambda body: body["localization"].update(change))
    with pytest.raises(refusals.SchemaViolation):
        read_run(path)


def test_doubts_are_told_with_the_place(tmp_path: Path) -> None:
    """An error that a right operator may have, and a claim that held while it was looked at."""
    found = localization(first={"times_bound": 1.7}, outcome="held")
    run = build_run(tmp_path, (row("falsified", localization=found),))
    assert run.rows[0].localization is not None
    told = first_fault(run.rows[0].localization)
    assert "distrust it" in told and "the claim was held, not falsified" in told


def test_one_place_is_told_once_and_named_ones_come_first(tmp_path: Path) -> None:
    """Whatever the size of its errors; then why the others are not named."""
    cases = {f"cpu-{n}": "full" for n in range(5)}
    bodies = [
        unnamed("left_out", "the time was used up"),
        unnamed("left_out", "the time was used up"),
        unnamed("left_out", "the time was used up"),
        localization(),
        localization(first={"times_bound": 9.0}),
    ]
    rows = tuple(
        row("falsified", case=case, localization=body)
        for case, body in zip(cases, bodies, strict=True)
    )
    run = build_run(tmp_path, rows, contracts=(contract(cases=cases),))
    named, left = places(run.rows)
    assert named.named and len(named.rows) == 2 and "412" in named.said
    assert (left.said, len(left.rows)) == ("not localized: the time was used up", 3)
