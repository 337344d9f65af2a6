"""How many optimizer steps a subject has taken: how soon after its cause a defect is seen.

Subjects live behind a protocol that aprverify does not import: building, stepping and running are
known by the names of their methods. What goes through a process of its own nobody can count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_BUILDING = ("build", "build_pretrain")
_ELSEWHERE = ("command", "run_directory")


@dataclass
class Steps:
    """Steps taken so far, by all instances of one falsifier; None once they cannot be told."""

    taken: int | None = 0

    def add(self, steps: int) -> None:
        """Some more."""
        if self.taken is not None:
            self.taken += steps


class CountingSubject:
    """A subject that passes everything on, and counts."""

    def __init__(self, inner: Any, steps: Steps) -> None:
        self._inner, self._steps = inner, steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in _ELSEWHERE:
            self._steps.taken = None
        if name in _BUILDING:
            return lambda *args, **options: _CountingInstance(found(*args, **options), self._steps)
        return found


class _CountingInstance:
    def __init__(self, inner: Any, steps: Steps) -> None:
        self._inner, self._steps = inner, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def train_step(self, *args: Any, **options: Any) -> Any:
        self._steps.add(1)
        return self._inner.train_step(*args, **options)

    def run(self, *args: Any, **options: Any) -> Any:
        result = self._inner.run(*args, **options)
        self._steps.add(len(result.logged))
        return result
