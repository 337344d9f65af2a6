"""How far one tensor is from another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import Tensor


def relative_error(value: Tensor, reference: Tensor) -> float:
    """‖value − reference‖ / ‖reference‖ in float64; 0 when both are zero.

    NaN on either side gives NaN, which no claim accepts. Another shape is infinitely wrong, and
    not broadcast: one right row would then stand for all of them.
    """
    if value.shape != reference.shape:
        return math.inf
    exact = reference.detach().double()
    difference = float((value.detach().to(exact.device).double() - exact).norm())
    size = float(exact.norm())
    if size == 0.0:
        return 0.0 if difference == 0.0 else difference * math.inf
    return difference / size


def worst_relative_error(
    values: Mapping[str, Tensor], references: Mapping[str, Tensor]
) -> tuple[float, str]:
    """The largest `relative_error` over equally named tensors, and its name.

    A tensor that one side lacks counts as infinitely wrong.
    """
    return worst_of(relative_errors(values, references).items())


def relative_errors(
    values: Mapping[str, Tensor], references: Mapping[str, Tensor]
) -> dict[str, float]:
    """The `relative_error` of each, by name in order; infinite where one side lacks it."""
    return {
        name: relative_error(values[name], references[name])
        if name in values and name in references
        else math.inf
        for name in sorted(values.keys() | references.keys())
    }


def worst_of(errors: Iterable[tuple[str, float]]) -> tuple[float, str]:
    """The first NaN, or else the first largest error, and its name; 0 where none is above that."""
    worst, where = 0.0, ""
    for name, error in errors:
        if math.isnan(error):
            return error, name
        if error > worst:
            worst, where = error, name
    return worst, where
