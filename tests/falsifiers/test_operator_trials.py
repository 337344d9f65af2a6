"""What judges operators element by element: it accepts the exact, and each fault has its number."""

from __future__ import annotations

import math

import pytest
import torch

from falsifiers.operator_trials import (
    Errors,
    element_error,
    exactly,
    gaussian,
    tried,
)
from falsifiers.reference.operators import swiglu


def test_one_wrong_element_of_many_counts_whole() -> None:
    """A relative L2 error would divide it by the size of all the others."""
    exact = torch.ones(1000, dtype=torch.float64)
    value = exact.clone()
    value[7] = 1.5
    assert element_error(value, exact, exact) == 0.5


def test_where_nothing_may_be_wrong_nothing_is_accepted() -> None:
    """A scale of zero accepts the exact value and no other."""
    exact, scale = torch.zeros(3), torch.zeros(3)
    assert element_error(exact, exact, scale) == 0.0
    assert element_error(torch.tensor([0.0, 1e-30, 0.0]), exact, scale) == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_never_within_a_bound(bad: float) -> None:
    """A claim compares with `<=`, which NaN and infinity must both fail."""
    error = element_error(torch.tensor([1.0, bad]), torch.ones(2), torch.ones(2))
    assert not error <= 1e300


def test_another_shape_is_wrong_and_nothing_is_right() -> None:
    """One right row must not stand for all, and no row has no error."""
    exact = torch.ones(2, 3)
    assert element_error(torch.ones(3), exact, exact) == math.inf
    assert element_error(torch.ones(0, 3), torch.ones(0, 3), torch.ones(0, 3)) == 0.0


def test_a_trial_of_the_oracle_is_the_oracles() -> None:
    """Outputs and gradients of both ways to run one function agree to the last digit."""
    arguments = {n: gaussian((4, 5), i, "cpu", torch.float64) for i, n in enumerate(("gate", "up"))}
    ours, upstream = tried(swiglu, arguments, seed=3)
    exact = exactly("swiglu", arguments, upstream)
    assert torch.equal(ours.outputs["out"], exact.outputs["out"])
    assert all(torch.equal(ours.gradients[n], exact.gradients[n]) for n in arguments)


def test_a_gradient_that_does_not_come_is_no_pass() -> None:
    """Of an argument that was cut off, and of a result without a graph."""
    x, y = torch.ones(2), torch.ones(2)
    cut, _ = tried(lambda a, b: a * b.detach(), {"a": x, "b": y})
    assert cut.gradients["a"].isfinite().all() and cut.gradients["b"].isnan().all()
    without, _ = tried(lambda a: a.detach(), {"a": x})
    assert without.gradients["a"].isnan().all()


def test_the_largest_error_is_kept_with_its_place_and_nan_above_all() -> None:
    """A later small error must not wipe out an earlier NaN."""
    errors = Errors()
    for error, where in ((0.1, "first"), (0.3, "second"), (0.2, "third")):
        errors.note("out", error, where)
    assert (errors.largest["out"], errors.where["out"]) == (0.3, "second")
    errors.note("out", math.nan, "fourth")
    errors.note("out", 1.0, "fifth")
    assert math.isnan(errors.largest["out"]) and errors.worst() == "out: fourth"


def test_dtypes_and_outputs_are_counted() -> None:
    """A claim on the dtype needs every output's."""
    errors = Errors()
    errors.saw({"q": torch.ones(1), "k": torch.ones(1, dtype=torch.bfloat16)})
    assert (errors.trials, errors.output_dtypes) == (2, "bfloat16,float32")
