"""What a falsifier may end with, beyond returning.

A falsifier that swallows one of these does not change its verdict, which is read from the
comparisons recorded and not from the exception.
"""

from __future__ import annotations


class Falsified(Exception):
    """A claim's own comparison failed."""


class Inconclusive(Exception):
    """The measurement itself cannot decide: too noisy, or a precondition did not come about."""


class NotRun(Exception):
    """The entry cannot run here.

    Attributes:
        kind: device, asset, package or subject.
        detail: what is missing.
        remedy: a command or an action that would let it run.
    """

    def __init__(self, kind: str, detail: str, remedy: str) -> None:
        super().__init__(f"{detail}; {remedy}" if remedy else detail)
        self.kind = kind
        self.detail = detail
        self.remedy = remedy


class Survived(Exception):
    """A planted defect was in force and no claim noticed."""


class Broken(Exception):
    """The falsifier did not do its part: nothing measured, or not what was declared."""
