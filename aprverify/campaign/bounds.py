"""How often a claim may fail where it failed so rarely: an upper bound at 95 % confidence."""

from __future__ import annotations

import math

_ALPHA = 0.05
_HALVINGS = 60


def upper_bound(failures: int, trials: int) -> float:
    """The rate above which so few failures in so many trials happen less than once in twenty.

    Without a failure it is the rule of three, 3/N; with some it is Clopper and Pearson's (1934),
    one-sided. Trials are taken to be independent, of one rate. At most 1, and 1 without a trial.
    """
    if failures == 0:
        return min(1.0, 3 / trials) if trials else 1.0
    low, high = failures / trials, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at_most(failures, trials, middle) > _ALPHA:
            low = middle
        else:
            high = middle
    return high


def _at_most(failures: int, trials: int, rate: float) -> float:
    """The probability of at most so many failures, each trial failing at `rate`."""
    if rate >= 1:
        return float(failures >= trials)
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(rate)
        + (trials - k) * math.log1p(-rate)
        for k in range(failures + 1)
    )
    return math.fsum(map(math.exp, logs))
