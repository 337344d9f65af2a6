"""Which falsifiers are tried on a mutant, in which order, and for how long each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aprverify.mutants.population import MODULE, Mutant

SHORTEST_LIMIT = 20.0
"""Seconds. On a busy machine a falsifier of milliseconds may wait that long for a core."""
SLOWER = 20.0
"""A falsifier may take so many times the processor time that it took, until it counts as hung."""


@dataclass(frozen=True)
class Watched:
    """A falsifier on the trainer as it is: how long it takes, and what it executes by file."""

    entry: str
    seconds: float
    lines: Mapping[str, frozenset[int]]

    @classmethod
    def of(cls, answer: Mapping[str, Any], package: str) -> Watched:
        """From what a worker answers; files are named below the suite's root from here on."""
        lines = {f"{package}/{file}": frozenset(found) for file, found in answer["lines"].items()}
        return cls(answer["entry"], answer["seconds"], lines)

    @property
    def limit(self) -> float:
        """Seconds after which it counts as hanging."""
        return max(SHORTEST_LIMIT, SLOWER * self.seconds)

    def reaches(self, mutant: Mutant) -> bool:
        """Whether it executes a line of the statement that the mutant changes."""
        first, last = mutant.lines
        return any(first <= line <= last for line in self.lines.get(mutant.file, ()))


def candidates(mutant: Mutant, watched: Sequence[Watched]) -> list[Watched]:
    """What can see the mutant, the cheapest first.

    What a module does on import reaches whoever uses it: then all are candidates, first those that
    call a function of the same file.
    """
    cheapest = sorted(watched, key=lambda one: (one.seconds, one.entry))
    if mutant.function != MODULE:
        return [one for one in cheapest if one.reaches(mutant)]
    return sorted(cheapest, key=lambda one: mutant.file not in one.lines)
