"""Operators that stand between a falsifier and a subject's, for protocol defects to override."""

from __future__ import annotations

from typing import Any

from aprverify.planting import Plant
from falsifiers.subject import EAGER, Execution
from falsifiers.wrapping import SubjectWrapper


class OperatorsWrapper:
    """Operators that pass everything on. `inner` are the clean ones."""

    def __init__(self, inner: Any, plant: Plant) -> None:
        self.inner = inner
        self.plant = plant

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def wrap_operators(plant: Plant, operators: type[OperatorsWrapper]) -> None:
    """Let the operators that the subject hands out be `operators`."""

    class Wrapped(SubjectWrapper):
        def operators(self, execution: Execution = EAGER) -> OperatorsWrapper:
            return operators(self.inner.operators(execution), plant)

    plant.wrap_subject(lambda subject: Wrapped(subject, plant))
