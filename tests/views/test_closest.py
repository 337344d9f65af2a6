"""Margins in units of the tolerance: what one unit is, and what has none."""

from __future__ import annotations

import math

import pytest

from aprverify.contract.claims import slack_and_margin
from aprverify.evidence.closest import deciding, nearest_first, tolerance_margin
from aprverify.evidence.records import Comparison
from tests.evidence.builder import comparison, contracts_and_rows, row


def compared(text: str, op: str, observed: object, bound: object, claim: str = "c") -> Comparison:
    """A comparison as a row records it; whether it holds does not matter here."""
    slack, margin = slack_and_margin(op, observed, bound)
    return Comparison(claim, text, op, observed, bound, "", slack, margin, True)


@pytest.mark.parametrize(
    ("op", "observed", "bound", "margin"),
    [
        ("<=", 0.25, 1.0, 0.75),
        ("<=", 3.0, 1.0, -2.0),
        ("<", 0.0, 1e-6, 1.0),
        (">=", 4.0, 1.0, 0.75),
        (">=", 0.5, 1.0, -1.0),
        ("<=", 1.0, 1.0, 0.0),
    ],
)
def test_a_margin_is_the_part_of_the_tolerance_that_is_left(
    op: str, observed: float, bound: float, margin: float
) -> None:
    """Of an upper bound its size, of a lower bound the value above it; beyond is negative."""
    assert tolerance_margin(compared(f"x {op} b", op, observed, bound), ()) == pytest.approx(margin)


@pytest.mark.parametrize(
    ("low_text", "low_claim"), [("low <= n", "c"), ("n >= low", "c"), ("n >= low", "d")]
)
def test_a_band_has_half_its_width_as_tolerance(low_text: str, low_claim: str) -> None:
    """In one claim or two, with the bound first or last; 373 uses 3/4 of 366 to 374."""
    low = compared(low_text, ">=", 373, 366, low_claim)
    high = compared("n <= high", "<=", 373, 374)
    assert tolerance_margin(high, (low, high)) == 0.25
    assert tolerance_margin(low, (low, high)) == 1.75


def test_another_quantity_of_the_same_value_makes_no_band() -> None:
    """Two counts that happen to be equal."""
    low, high = compared("m >= 1", ">=", 9, 1), compared("n <= 10", "<=", 9, 10)
    assert tolerance_margin(high, (low, high)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("op", "observed", "bound"),
    [
        ("==", 1.0, 1.0),
        ("<=", math.nan, 1.0),
        ("contains", "a", "a"),
        ("==", True, True),
        ("<=", 0.0, 0),
    ],
)
def test_what_has_no_tolerance_has_no_margin(op: str, observed: object, bound: object) -> None:
    """Exact claims, texts, and values that are no numbers."""
    assert tolerance_margin(compared(f"x {op} b", op, observed, bound), ()) is None


def test_a_band_without_width_is_an_exact_claim() -> None:
    """``0 <= n <= 0``."""
    low, high = compared("0 <= n", ">=", 0, 0), compared("n <= 0", "<=", 0, 0)
    assert tolerance_margin(high, (low, high)) is None


def test_the_smallest_margin_comes_first_and_counts_at_their_bound_are_left_out() -> None:
    """9 of at most 9 has no noise, 9.0 of at most 9.0 has. Teeth and failures do not count."""
    bodies = (
        row(case="a", comparisons=[comparison(9, 9)]),
        row(case="b", comparisons=[comparison(9.0, 9.0)]),
        row(case="c", observed=0.9),
        row("falsified", case="d"),
        row("caught", case="e", defect="drop-bias"),
    )
    _, rows = contracts_and_rows(bodies)
    assert [near.row.case_id for near in nearest_first(rows)] == ["b", "c"]


def test_what_fails_decides_whatever_else_is_near() -> None:
    """And without a failure the smallest margin, whatever the order of rows."""
    _, rows = contracts_and_rows((row(case="a", observed=0.999), row("falsified", case="b")))
    held = [r for r in rows if r.outcome == "held"]
    for order in (1, -1):
        near = deciding(rows[::order])
        assert near is not None and near.row.case_id == "b"
    near = deciding(held)
    assert near is not None and near.margin == pytest.approx(0.001)
    assert deciding([]) is None


def test_a_measurement_decides_before_a_count() -> None:
    """1 of at least 1 and 2 of at least 1 are where they always are; alone, a count is shown."""
    bodies = (
        row(case="a", comparisons=[comparison(1, 1)]),
        row(case="b", comparisons=[comparison(9, 10)]),
        row(case="c", observed=0.5),
    )
    _, rows = contracts_and_rows(bodies)
    near = deciding(rows)
    assert near is not None and near.row.case_id == "c"
    near = deciding(rows[:2])
    assert near is not None and near.row.case_id == "b"
