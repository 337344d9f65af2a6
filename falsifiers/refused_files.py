"""Files that must all be refused, each tried alone, none of which may leave a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from falsifiers.subject import SubjectRefused


@dataclass
class Tried:
    """What became of them, by label.

    Attributes:
        accepted: those that were taken.
        crashed: those that ended in another error than a refusal.
        refused: kind and message of the rest.
        count: how many were tried.
    """

    accepted: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    refused: dict[str, SubjectRefused] = field(default_factory=dict)
    count: int = 0

    def each(self, attempts: Iterable[tuple[str, Callable[[], Any]]]) -> Tried:
        """Run each attempt and note how it ended."""
        for label, action in attempts:
            self.count += 1
            try:
                action()
            except SubjectRefused as refusal:
                self.refused[label] = refusal
            except Exception as error:  # whatever it is, a reader would have met a traceback
                self.crashed.append(f"{label}: {type(error).__name__}")
            else:
                self.accepted.append(label)
        return self

    def kinds(self) -> str:
        """The kinds of all refusals, sorted."""
        return ", ".join(sorted({refusal.kind for refusal in self.refused.values()}))

    def unnamed(self, needles: dict[str, str]) -> list[str]:
        """Refusals whose message lacks what it should name."""
        return [
            label
            for label, refusal in self.refused.items()
            if label in needles and needles[label] not in str(refusal)
        ]

    def faults(self) -> str:
        """Everything that was not refused, for the reader of a report."""
        return "; ".join([*(f"accepted {label}" for label in self.accepted), *self.crashed])[:800]
