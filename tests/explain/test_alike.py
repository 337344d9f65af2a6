"""A failure is held against planted defects, and what cannot be told is not told."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from aprverify.evidence.records import Row, row_from
from aprverify.evidence.values import encode
from aprverify.explain.alike import effects, likeness
from aprverify.explain.planted import Planted
from tests.evidence.builder import Body, build_run, comparison, row

from .runs import CLEAN, KNOWN, caught, contracts, evidence, failing


def record(body: Body) -> Row:
    return row_from(encode(dict(body)))


def like(one: Body, other: Body) -> float:
    clean = record(row())
    return likeness(effects(record(one), clean), effects(record(other), clean))


@pytest.mark.parametrize("observed", [2.0, 1e9, math.nan, math.inf])
def test_a_failure_is_wholly_like_itself(observed: float) -> None:
    """Whatever was observed."""
    assert like(failing(observed), caught("eps", observed)) == 1.0


def test_likeness_falls_with_the_distance_on_a_logarithmic_scale() -> None:
    """Far beyond the bound a factor counts less than near it; both count the same either way."""
    near, far = like(failing(2.0), failing(20.0)), like(failing(2e6), failing(2e7))
    assert near < far < 1.0
    assert like(failing(20.0), failing(2.0)) == near
    assert like(failing(2.0), failing(1e12)) < 0.1


def test_a_number_is_not_like_what_is_no_number() -> None:
    """NaN is an effect of its own, and another one than infinity."""
    assert like(failing(math.nan), failing(2.0)) == 0.0
    assert like(failing(math.nan), failing(math.inf)) == 0.0


def test_what_both_left_alone_says_nothing() -> None:
    """A measure that stayed as it was makes two different failures no more alike."""
    alone = like(failing(2.0), failing(2000.0))
    beside = [comparison(0.5), comparison(0.1, text="other <= 1", claim="c2")]

    def two(first: float) -> Body:
        made = [comparison(first), beside[1]]
        return row("falsified", comparisons=made, measures={"loss": first, "other": 0.1})

    clean = record(row(comparisons=beside, measures={"loss": 0.5, "other": 0.1}))
    one, other = (effects(record(two(x)), clean) for x in (2.0, 2000.0))
    assert likeness(one, other) == pytest.approx(alone)


def test_digests_and_paths_are_no_symptoms() -> None:
    """They differ from run to run whatever went wrong; words do not."""

    def saying(text: str) -> Body:
        return row("falsified", observed=2.0, measures={"loss": 2.0, "fault": text})

    clean = record(row(measures={"loss": 0.5, "fault": ""}))
    said = [saying(f"/tmp/{c}/f lost at {n}, {c * 16}") for n, c in ((1, "ab"), (22, "cd"))] + [
        saying("no header")
    ]
    one, same, other = (effects(record(body), clean) for body in said)
    assert likeness(one, same) == 1.0
    assert likeness(one, other) < 0.9


def test_the_most_alike_defect_comes_first(tmp_path: Path) -> None:
    """Each planted effect, a little off, is taken for the defect that it is near to."""
    planted = Planted([evidence(tmp_path)])
    for observed, defect in ((2.2, "drop-bias"), (35.0, "eps"), (7000.0, "theta")):
        causes = planted.causes(record(failing(observed)))
        assert causes[0].defect == defect
        assert causes[0].alike and causes[0].same_case and not causes[0].on_top
        assert len(causes) == 3


def test_what_was_planted_on_top_of_the_failure_gives_way_to_what_was_planted_alone(
    tmp_path: Path,
) -> None:
    """With the failure itself in them, all planted defects look like it."""
    rows = (failing(9000.0), CLEAN[1], *(caught(d, 9000.0) for d in ("drop-bias", "eps", "theta")))
    run = build_run(tmp_path / "run", rows, contracts=contracts())
    failure = run.rows[0]
    alone = Planted([run]).causes(failure)
    assert all(cause.on_top and cause.likeness == 1.0 for cause in alone)
    causes = Planted([run, evidence(tmp_path / "known")]).causes(failure)
    assert [c.defect for c in causes if c.alike] == ["theta"]
    assert not any(cause.on_top for cause in causes)
    some = evidence(tmp_path / "some", (*CLEAN, caught("eps", 40.0)))
    (known,) = Planted([run, some]).causes(failure)
    assert known.defect == "eps" and not known.alike


def test_a_row_that_is_left_out_is_not_compared_with(tmp_path: Path) -> None:
    """So that quality is not measured on the answer itself."""
    planted = Planted([evidence(tmp_path, KNOWN)])
    failure = record(failing(40.0))
    left = planted.causes(failure, lambda origin: origin.row.defect == "eps")
    assert {cause.defect for cause in left} == {"drop-bias", "theta"}
