"""Who is evaluated next: the test whose claims reach their number soonest.

Of all orders the shortest first brings the most claims to their number before time runs out. A
test's evaluations are shared evenly among its cases. What one takes is taken from the committed
runs at first, and then from the campaign itself.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aprverify.campaign.seeds import drawn
from aprverify.campaign.targets import Target

_UNKNOWN = 0.1
"""Seconds, of a case that no run has seen."""
_LOT_SECONDS = 3.0
_LOT_MOST = 64
_LOT_FIRST = 2
"""Of a case not seen yet: it may not run here, or its falsifier may not ask for its seed."""


@dataclass
class _Progress:
    target: Target
    quota: int
    number: int
    seconds: float
    verdicts: int = 0
    waiting: int = 0
    given_up: bool = False
    seen: bool = False

    @property
    def left(self) -> int:
        return 0 if self.given_up else max(0, self.quota - self.verdicts - self.waiting)


@dataclass(frozen=True)
class Lot:
    """Some seeds of one case, for one worker. `first`: their running number."""

    target: Target
    first: int
    seeds: tuple[int, ...]


@dataclass
class Schedule:
    """What is still to be evaluated; several threads may ask."""

    progress: dict[str, _Progress]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> Lot | None:
        """The next lot; None where nothing is left to begin."""
        with self._lock:
            open_ones = [p for p in self.progress.values() if p.left]
            if not open_ones:
                return None
            chosen = min(open_ones, key=lambda p: (self._cost(p.target.test.id), _share(p)))
            return self._lot(chosen)

    def _lot(self, chosen: _Progress) -> Lot:
        most = max(1, min(_LOT_MOST, int(_LOT_SECONDS / max(chosen.seconds, 1e-4))))
        size = min(chosen.left, most if chosen.seen else _LOT_FIRST)
        first = chosen.number
        chosen.number += size
        chosen.waiting += size
        numbers = range(first, first + size)
        return Lot(chosen.target, first, tuple(drawn(chosen.target.key, n) for n in numbers))

    def _cost(self, test: str) -> float:
        """Seconds until the test has its number, for each of its claims."""
        parts = [p for p in self.progress.values() if p.target.test.id == test]
        return sum(p.left * p.seconds for p in parts) / len(parts[0].target.test.claims)

    def done(self, lot: Lot, verdicts: int, seconds: float, *, worthwhile: bool) -> None:
        """A lot came back. Where more of its kind would tell nothing its case is given up."""
        with self._lock:
            progress = self.progress[lot.target.key]
            progress.waiting -= len(lot.seeds)
            self._count(progress, len(lot.seeds), verdicts, seconds, worthwhile)

    def recall(self, key: str, drawn: int, verdicts: int, seconds: float, worthwhile: bool) -> None:
        """A lot of an earlier session."""
        if (progress := self.progress.get(key)) is not None:
            progress.number += drawn
            self._count(progress, drawn, verdicts, seconds, worthwhile)

    @staticmethod
    def _count(
        progress: _Progress, drawn: int, verdicts: int, seconds: float, worthwhile: bool
    ) -> None:
        progress.verdicts += verdicts
        each = seconds / drawn
        # The first lot pays for imports and compilation.
        progress.seconds = min(each, progress.seconds) if progress.seen else each
        progress.seen = True
        progress.given_up = progress.given_up or not worthwhile

    @property
    def complete(self) -> bool:
        """Whether every case has its share, or was given up."""
        return not any(p.left for p in self.progress.values())


def _share(progress: _Progress) -> float:
    return 1 - progress.left / progress.quota


def schedule(
    targets: Sequence[Target], evaluations: int, first: int, seconds: Mapping[str, float]
) -> Schedule:
    """Nothing done yet. `seconds`: what an evaluation of a target took elsewhere, by its key."""
    cases: dict[str, int] = {}
    for target in targets:
        cases[target.test.id] = cases.get(target.test.id, 0) + 1
    return Schedule(
        {
            target.key: _Progress(
                target,
                math.ceil(evaluations / cases[target.test.id]),
                first,
                seconds.get(target.key, _UNKNOWN),
            )
            for target in targets
        }
    )


def seconds_of(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The least seconds by target key: what is not least paid for imports as well."""
    found: dict[str, float] = {}
    for key, seconds in rows:
        found[key] = min(seconds, found.get(key, math.inf))
    return found
