"""How far one tensor is from another, and that nothing broken counts as near."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from falsifiers.errors import relative_error, worst_relative_error


def test_relative_error_is_norm_over_norm():
    """A difference of (3, 4), which is 5 long, against a reference that is 3 long."""
    assert relative_error(tensor([6.0, 4.0]), tensor([3.0, 0.0])) == pytest.approx(5 / 3, rel=1e-15)


def test_relative_error_is_taken_in_float64():
    """Rounding of bfloat16 is measured, not lost: the difference is formed after widening."""
    exact = tensor(1.0 + 2.0**-20, dtype=torch.float64)
    assert relative_error(exact.bfloat16(), exact) == pytest.approx(2.0**-20, rel=1e-5)


def test_zero_against_zero_is_no_error():
    """Two tensors of zeros are equal."""
    assert relative_error(torch.zeros(3), torch.zeros(3)) == 0.0


def test_anything_against_zero_is_infinitely_wrong():
    """A reference of zeros has no scale: the smallest difference is infinite."""
    assert relative_error(tensor([0.0, 1e-30]), torch.zeros(2)) == math.inf


@pytest.mark.parametrize("reference", [torch.ones(2), torch.zeros(2), tensor([1.0, math.nan])])
def test_nan_in_the_value_gives_nan(reference):
    """NaN is never near, not even to NaN or to zero."""
    assert math.isnan(relative_error(tensor([1.0, math.nan]), reference))


def test_nan_or_infinity_in_the_reference_gives_no_number_that_a_claim_accepts():
    """A broken reference is no yardstick: the result is not finite."""
    for broken in (math.nan, math.inf):
        assert not math.isfinite(relative_error(torch.ones(2), tensor([1.0, broken])))


def test_infinity_against_infinity_is_not_equal():
    """inf − inf is NaN, and stays so."""
    both = tensor([1.0, math.inf])
    assert math.isnan(relative_error(both, both))


def test_another_shape_is_infinitely_wrong():
    """A right row does not stand for all rows by broadcasting."""
    row = torch.ones(1, 4)
    assert relative_error(row, row.expand(3, 4)) == math.inf


def test_the_worst_name_is_reported():
    """The largest error and where it is."""
    references = {"a": torch.ones(4), "b": torch.ones(4), "c": torch.ones(4)}
    values = {"a": torch.full((4,), 1.01), "b": torch.full((4,), 0.9), "c": torch.ones(4)}
    worst, where = worst_relative_error(values, references)
    assert (worst, where) == (pytest.approx(0.1, rel=1e-6), "b")


def test_equal_tensors_have_no_worst():
    """Nothing wrong is named nothing."""
    same = {"a": torch.ones(2)}
    assert worst_relative_error(same, same) == (0.0, "")


@pytest.mark.parametrize("missing_side", ["value", "reference"])
def test_a_name_that_one_side_lacks_is_infinitely_wrong(missing_side):
    """Leaving a gradient out must not be a way to pass."""
    full, part = {"a": torch.ones(2), "b": torch.ones(2)}, {"a": torch.ones(2)}
    sides = (part, full) if missing_side == "value" else (full, part)
    assert worst_relative_error(*sides) == (math.inf, "b")


def test_nan_outranks_every_number():
    """A NaN is reported even beside an infinite error that comes first."""
    references = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
    values = {"b": tensor([1.0, math.nan]), "c": torch.ones(2)}
    worst, where = worst_relative_error(values, references)
    assert math.isnan(worst) and where == "b"
