"""How large a share of mutants falls, with the interval that a sample of that size leaves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

OUTCOMES = ("killed", "crashed", "timed_out", "broken", "survived", "unreached")
"""Of a mutant, most telling first."""
Z = 1.959963984540054
"""The 97.5th percentile of the normal distribution: 95 % between both sides."""


@dataclass(frozen=True)
class Share:
    """`part` of `whole`, with its 95 % interval (Wilson 1927)."""

    part: int
    whole: int

    @property
    def value(self) -> float:
        """The share; NaN of nothing."""
        return self.part / self.whole if self.whole else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end. Of nothing it is everything."""
        if not self.whole:
            return 0.0, 1.0
        n, p = self.whole, self.value
        middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        if not self.whole:
            return "–"
        low, high = self.interval
        return f"{self.part}/{self.whole} = {self.value:.1%} ({low:.1%} … {high:.1%})"


@dataclass(frozen=True)
class Score:
    """The outcomes of a set of mutants, counted in three ways."""

    counts: Counter[str]
    equivalent: int

    @classmethod
    def of(cls, outcomes: Iterable[tuple[str, bool]]) -> Score:
        """From outcomes, each with whether the mutant is argued to be equivalent."""
        told = list(outcomes)
        return cls(Counter(o for o, _ in told), sum(e for o, e in told if o in _ALIVE))

    @property
    def total(self) -> int:
        """All mutants."""
        return sum(self.counts.values())

    @property
    def by_claim(self) -> Share:
        """A claim was falsified; everything else counts against."""
        return Share(self.counts["killed"], self.total)

    @property
    def noticed(self) -> Share:
        """A claim was falsified, or the trainer broke or hung under a falsifier."""
        return Share(self._noticed, self.total)

    @property
    def without_equivalent(self) -> Share:
        """`noticed`, of those that are not argued to be equivalent."""
        return Share(self._noticed, self.total - self.equivalent)

    @property
    def _noticed(self) -> int:
        return sum(self.counts[name] for name in ("killed", "crashed", "timed_out"))


_ALIVE = ("survived", "unreached")
