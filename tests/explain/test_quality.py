"""docs/explain.md says how good the ranking is: its numbers are those of the committed runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from aprverify.evidence.records import Run
from aprverify.explain.quality import Quality, qualities, quality_lines
from tests.views.runs import committed

DOCS = Path(__file__).resolve().parents[2] / "docs" / "explain.md"
MEASURED = "20261123T190911Z-698ac0"
OTHERS = ("20261123T155324Z-0128a2", "h100-20261123", "h100-run")


@cache
def measured() -> tuple[Quality, ...]:
    """Of the runs that the page names, whatever others were committed since."""
    runs: dict[str, Run] = {run.header.run_id: run for run in committed()}
    return tuple(qualities(runs[MEASURED], [runs[name] for name in OTHERS]))


def test_the_page_has_the_numbers_that_are_measured() -> None:
    """Recomputed from run.jsonl alone; whoever changes the ranking changes the page."""
    assert "\n".join(quality_lines(measured())) in DOCS.read_text("utf-8")
    assert all(name in DOCS.read_text("utf-8") for name in (MEASURED, *OTHERS))


def test_the_ranking_is_better_than_chance_by_far() -> None:
    """Where the right defect is known from other cases only, it is mostly first, by no lookup."""
    elsewhere = next(q for q in measured() if q.question == "other cases only")
    assert elsewhere.failures > 50
    assert elsewhere.first > 2 * elsewhere.chance
    assert elsewhere.three >= 0.9 * elsewhere.failures


def test_every_caught_defect_is_asked_about() -> None:
    """None is left out of the numbers because it is hard."""
    run = next(run for run in committed() if run.header.run_id == MEASURED)
    caught = sum(row.outcome == "caught" for row in run.rows)
    either, kept, *_, never = measured()
    assert {either.failures, kept.failures, never.failures} == {caught}
    assert never.named == 0
