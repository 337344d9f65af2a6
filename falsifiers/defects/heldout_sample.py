"""Held-out sets that are limited in another way than by a sample of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, Plant, defect
from falsifiers.subject import Batch
from falsifiers.wrapping import SubjectWrapper


class _FirstWindows(SubjectWrapper):
    def heldout_batches(
        self, dataset: Path, *, tokens: int | None = None, **options: Any
    ) -> Sequence[Batch]:
        """As many windows as the inner subject takes, from the beginning of the stream."""
        if tokens is None:
            whole: Sequence[Batch] = self.inner.heldout_batches(dataset, **options)
            return whole
        alone = {**options, "batch": 1}
        kept = len(self.inner.heldout_batches(dataset, tokens=tokens, **alone))
        every = self.inner.heldout_batches(dataset, **alone)
        self.plant.effect(1 < kept < len(every))
        return every[:kept]


@defect(
    "first-windows-held-out",
    kind=PROTOCOL,
    imitates="islice(heldout, eval_iters): the head of one file stands for all that is held out",
    symptom="the held-out loss is that of the first documents",
    hidden="it falls as it should, and is steadier than that of a sample",
)
def first_windows_held_out(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _FirstWindows(subject, plant))


class _Unlimited(SubjectWrapper):
    def heldout_batches(
        self, dataset: Path, *, tokens: int | None = None, **options: Any
    ) -> Sequence[Batch]:
        """Everything that is held out."""
        self.plant.effect(tokens is not None)
        whole: Sequence[Batch] = self.inner.heldout_batches(dataset, **options)
        return whole


@defect(
    "heldout-limit-ignored",
    kind=PROTOCOL,
    imitates="an option that is parsed and passed to nobody",
    symptom="each validation scores everything, however long that takes",
    hidden="the loss is the better estimate",
)
def heldout_limit_ignored(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _Unlimited(subject, plant))


class _LastWindowLost(SubjectWrapper):
    def heldout_batches(
        self, dataset: Path, *, tokens: int | None = None, **options: Any
    ) -> Sequence[Batch]:
        """Without a limit, everything but the stream's last window."""
        batches: Sequence[Batch] = self.inner.heldout_batches(dataset, tokens=tokens, **options)
        if tokens is None:
            self.plant.effect(True)
            batches = list(self.inner.heldout_batches(dataset, **{**options, "batch": 1}))[:-1]
        return batches


@defect(
    "heldout-tail-lost",
    kind=PROTOCOL,
    imitates="drop_last=True, or (len - 1) // length windows, in the loader of what is held out",
    symptom="what the last window cannot fill is never scored",
    hidden="of a long stream it is next to nothing; of a short one, a document",
)
def heldout_tail_lost(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _LastWindowLost(subject, plant))
