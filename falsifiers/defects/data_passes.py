"""Passes over the data that are announced wrongly, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, Plant, defect
from falsifiers.wrapping import SubjectWrapper

_Told = Callable[[int], None]


class _Announced(SubjectWrapper):
    """The inner subject's batches; what is told of passes goes through `tell`."""

    def training_batches(
        self, dataset: Path, *, on_pass: _Told | None = None, **options: Any
    ) -> Iterator[Any]:
        """See the class."""
        if on_pass is None:
            yield from self.inner.training_batches(dataset, **options)
            return
        yield from self.tell(dataset, on_pass, options)

    def tell(self, dataset: Path, on_pass: _Told, options: dict[str, Any]) -> Iterator[Any]:
        """The batches, with `on_pass` called wrongly."""
        raise NotImplementedError


class _ToldAnew(_Announced):
    def tell(self, dataset: Path, on_pass: _Told, options: dict[str, Any]) -> Iterator[Any]:
        """Tells at once of the pass that a resume falls into."""
        first = options.get("first_step", 0)
        earlier: list[int] = []
        if first:
            whole = self.inner.training_batches(
                dataset, **{**options, "first_step": 0}, on_pass=earlier.append
            )
            for _ in range(first):
                next(whole)
            whole.close()  # type: ignore[attr-defined]
            self.plant.effect(True)
            on_pass(earlier[-1])
        yield from self.inner.training_batches(dataset, **options, on_pass=on_pass)


@defect(
    "pass-told-anew-at-a-resume",
    kind=PROTOCOL,
    imitates="a range that begins at the pass of its first window, whole or not",
    symptom="every resume says that the data was used up and a pass begins",
    hidden="batches are right, and a run that is never resumed says nothing wrong",
)
def pass_told_anew_at_a_resume(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _ToldAnew(subject, plant))


class _NotTold(_Announced):
    def tell(self, dataset: Path, on_pass: _Told, options: dict[str, Any]) -> Iterator[Any]:
        """Tells of nothing in a stream that was resumed."""

        def told(number: int) -> None:
            self.plant.effect(options.get("first_step", 0) > 0)
            if not options.get("first_step", 0):
                on_pass(number)

        yield from self.inner.training_batches(dataset, **options, on_pass=told)


@defect(
    "pass-not-told-after-a-resume",
    kind=PROTOCOL,
    imitates="a flag 'said once' that a checkpoint restores as said",
    symptom="a resumed run goes over its data again and says nothing",
    hidden="the loss falls faster, as one hopes",
)
def pass_not_told_after_a_resume(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _NotTold(subject, plant))


class _ToldLate(_Announced):
    def tell(self, dataset: Path, on_pass: _Told, options: dict[str, Any]) -> Iterator[Any]:
        """Tells of each pass before the next step instead of its own."""
        waiting: list[int] = []
        for batches in self.inner.training_batches(dataset, **options, on_pass=waiting.append):
            begun = waiting.copy()
            waiting.clear()
            yield batches
            self.plant.effect(bool(begun))
            for number in begun:
                on_pass(number)


@defect(
    "pass-told-a-step-late",
    kind=PROTOCOL,
    imitates="a pass that is counted by whole steps, rounded up",
    symptom="the notice comes after the first step on data that was seen before",
    hidden="one step later nobody can tell the difference by the loss",
)
def pass_told_a_step_late(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _ToldLate(subject, plant))
