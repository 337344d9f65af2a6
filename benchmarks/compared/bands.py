"""When an observer of curves raises an alarm.

Some clean runs, which differ in their seed, say how far each number of a curve strays. A number is
out of its band if a further clean run would be as far off with a probability of `LEVEL` divided by
how many numbers are looked at (Student's prediction interval and Bonferroni's bound), so that all
of them together raise a false alarm in at most about one clean run of a hundred. A practitioner
has no such runs and looks at fewer numbers by eye: this is the watch that misses least.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.compared.curves import EVERY, Curve

LEVEL = 0.01
JUMP = 2.0
"""A loss that rises by twice the mean of the ten before it: Lightning's ``SpikeDetection``,
``window=10, rtol=2.0``."""

Curves = Mapping[str, Curve]
Numbers = dict[str, float]
_WINDOW = EVERY


def loss_numbers(curves: Curves) -> Numbers:
    """Means of ten losses each, and every held-out loss."""
    found: Numbers = {}
    for name, curve in curves.items():
        found |= _windows(f"{name} loss", curve.losses)
        found |= {f"{name} held-out loss {i}": value for i, value in enumerate(curve.heldout)}
    return found


def norm_numbers(curves: Curves) -> Numbers:
    """Means of ten norms' logarithms each, the largest and the smallest."""
    found: Numbers = {}
    for name, curve in curves.items():
        logs = [math.log(norm) if norm > 0 else -math.inf for norm in curve.norms]
        found |= _windows(f"{name} norm", logs)
        if logs:
            found |= {f"{name} largest norm": max(logs), f"{name} smallest norm": min(logs)}
    return found


def _windows(name: str, values: Sequence[float]) -> Numbers:
    starts = range(0, len(values) - _WINDOW + 1, _WINDOW)
    return {f"{name} {s}–{s + _WINDOW - 1}": _mean(values[s : s + _WINDOW]) for s in starts}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class Bands:
    """Where the numbers of clean runs lie, and how clean runs end."""

    limits: Mapping[str, tuple[float, float]]
    endings: Mapping[str, str]

    @classmethod
    def of(cls, runs: Sequence[Numbers], endings: Mapping[str, str]) -> Bands:
        """From several clean runs with the same numbers."""
        count = len(runs)
        level = LEVEL / len(runs[0])
        wide = student_quantile(1 - level / 2, count - 1) * math.sqrt(1 + 1 / count)
        limits = {}
        for name in runs[0]:
            values = [run[name] for run in runs]
            mean, reach = statistics.fmean(values), wide * statistics.stdev(values)
            limits[name] = (mean - reach, mean + reach)
        return cls(limits, endings)

    def alarm(self, numbers: Numbers, curves: Curves) -> str:
        """Why an observer would look closer, or ""."""
        for name, curve in curves.items():
            if curve.ending != self.endings[name]:
                return f"{name} ended with {curve.ending}"
        for name, (low, high) in self.limits.items():
            if name not in numbers:
                return f"{name} is missing"
            if not low <= numbers[name] <= high:
                return f"{name}: {numbers[name]:.4g}, not {low:.4g} … {high:.4g}"
        return ""


def spike(curves: Curves) -> str:
    """A loss that is not finite or jumps, or ""."""
    for name, curve in curves.items():
        for step, loss in enumerate(curve.losses):
            if not math.isfinite(loss):
                return f"{name} loss of step {step} is {loss}"
            before = curve.losses[max(0, step - _WINDOW) : step]
            if before and loss - before[-1] >= JUMP * _mean(before):
                return f"{name} loss jumps to {loss:.4g} at step {step}"
    return ""


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t, by bisection of its distribution function (above 0.5)."""
    low, high = 0.0, 1e4
    while high - low > 1e-9 * (1 + high):
        middle = (low + high) / 2
        if _student_below(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return high


def _student_below(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0: Simpson's rule over the angle arctan(t / √ν), where it is cosᵛ⁻¹."""
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(math.pi) * math.gamma(freedom / 2))
    end, pieces = math.atan(t / math.sqrt(freedom)), 400
    width = end / pieces
    weights = [1, *([4, 2] * (pieces // 2 - 1)), 4, 1]
    area = sum(w * math.cos(i * width) ** (freedom - 1) for i, w in enumerate(weights))
    return 0.5 + scale * area * width / 3
