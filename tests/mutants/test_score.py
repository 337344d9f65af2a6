"""How outcomes are counted, and the interval."""

from __future__ import annotations

import pytest

from aprverify.mutants.score import Score, Share


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    # As Newcombe 1998 tabulates it (Statistics in Medicine 17, table I, method 3).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_the_interval_is_wilsons(part: int, whole: int, low: float, high: float) -> None:
    """To the four digits that are printed."""
    assert Share(part, whole).interval == pytest.approx((low, high), abs=5e-5)


def test_an_interval_of_nothing_is_everything() -> None:
    """And says nothing."""
    assert Share(0, 0).interval == (0.0, 1.0) and str(Share(0, 0)) == "–"


def test_crashes_are_no_claims_and_equivalents_are_only_taken_from_those_alive() -> None:
    """An argument about a mutant that was killed must not raise the score."""
    told = [("killed", True), ("crashed", False), ("timed_out", False), ("broken", False),
            ("survived", True), ("survived", False), ("unreached", True)]  # fmt: skip
    score = Score.of(told)
    assert (score.by_claim.part, score.by_claim.whole) == (1, 7)
    assert (score.noticed.part, score.noticed.whole) == (3, 7)
    assert (score.without_equivalent.part, score.without_equivalent.whole) == (3, 5)
