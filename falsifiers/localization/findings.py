"""What localizing found: a place, what left its bound there, and what kind of fault it looks like.

Errors are given in units of their bound (``times_bound``): above 1 the bound is left. The bounds
are factors over the error of plain eager torch on the same inputs; they come from a contract.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from falsifiers.errors import relative_error
from falsifiers.operator_parity import _gain_error

UNKNOWN = "no known fault fits"
_LEAST = 1e-12
"""Smaller differences from float64 are float64's own."""
_TRUSTED = 2.0


@dataclass(frozen=True)
class Bounds:
    """Factors over plain eager torch's error.

    Attributes:
        eager: of outputs and gradients.
        attention: of the gradients of attention.
        gain: of the error along each exact row.
    """

    eager: float
    attention: float
    gain: float

    @classmethod
    def of(cls, constants: Mapping[str, float]) -> Bounds:
        """From a contract's ``eager_factor``, ``attention_factor`` and ``gain_factor``."""
        return cls(*(constants[f"{name}_factor"] for name in ("eager", "attention", "gain")))


@dataclass(frozen=True)
class Finding:
    """One thing that left its bound.

    Attributes:
        phase: ``parameters``, ``buffers``, ``forward``, ``result``, ``backward``, ``optimizer`` …
        where: the operator, parameter or quantity.
        tensor: which tensor of it.
        times_bound: its error in units of the bound; infinite for what is simply not there.
        fault: what kind of fault it looks like, in words.
        seen_in: the call in which it was met.
    """

    phase: str
    where: str
    tensor: str
    times_bound: float
    fault: str
    seen_in: str = ""

    @property
    def of_operator(self) -> bool:
        """Whether an operator is named, and not a quantity of a step."""
        return not self.where.startswith("step ")

    @property
    def sentence(self) -> str:
        """``layers.7.self_attn.q_proj: bias not added (max error 412 × bound; …)``."""
        given = {
            "forward": "; inputs within bound",
            "backward": "; gradients received within bound",
        }.get(self.phase if self.of_operator else "", "")
        if not math.isfinite(self.times_bound):
            return f"{self.where}: {self.fault} ({self.tensor}{given})"
        size = f"{self.times_bound:.3g} × bound"
        error = "max error" if self.phase == "buffers" else "error"
        return f"{self.where}: {self.fault} ({self.tensor}: {error} {size}{given})"


def trusted(finding: Finding) -> bool:
    """Whether it is further from its bound than right operators were seen to get (1.9 times)."""
    return finding.times_bound >= _TRUSTED


@dataclass(frozen=True)
class Point:
    """An error in units of its bound, for the picture."""

    phase: str
    where: str
    times_bound: float


@dataclass
class Look:
    """All that one look at an instance showed, in the order in which causes come first."""

    findings: list[Finding] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def add(self, other: Look) -> None:
        """Append what another look showed."""
        self.findings += other.findings
        self.points += other.points


def misfit(
    ours: Tensor,
    reference: Tensor,
    least: float,
    factor: float,
    gain: tuple[float, float] | None = None,
) -> float:
    """The error of `ours` against a float64 `reference`, in units of the bound; ≤ 1 fits.

    Args:
        ours: what was computed, any dtype.
        reference: float64, the same shape; another shape is infinitely wrong.
        least: the relative error that plain torch makes here.
        factor: how often that is allowed.
        gain: plain torch's gain error and its factor, where rows have a direction.
    """
    if ours.shape == reference.shape and not bool(reference.isfinite().all()):
        # An alternative that overflows fits what overflows at the same places.
        kept = reference.isfinite()
        if not torch.equal(kept, ours.isfinite()):
            return math.inf
        ours, reference, gain = ours[kept], reference[kept], None
    error = relative_error(ours, reference)
    if math.isnan(error):
        return math.inf
    times = error / (factor * max(least, _LEAST))
    if gain is not None and reference.ndim > 1 and math.isfinite(error):
        times = max(times, _gain_error(ours, reference) / (gain[1] * max(gain[0], _LEAST)))
    return times


def rounding(reference: Tensor, dtype: torch.dtype) -> float:
    """The relative error of rounding `reference` to `dtype` once."""
    return relative_error(reference.to(dtype), reference)
