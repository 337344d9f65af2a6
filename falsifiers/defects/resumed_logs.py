"""Logs of resumed runs that hold a step twice, or never."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, wrap_instances


def _open_otherwise(plant: Plant, mode: str) -> None:
    def make(original: Any) -> Any:
        def init(log: Any, path: Path, keep: int = 0) -> None:
            if not keep:
                original(log, path)
                return
            plant.effect(True)
            log._file = path.open(mode, encoding="utf-8")

        return init

    plant.patch("trainer.run.metrics:MetricsLog.__init__", make)


@defect(
    "resumed-log-appended-to",
    kind=SOURCE,
    imitates="a logger in append mode, behind a checkpoint that is older than the last line",
    symptom="the steps between the checkpoint and the kill stand in the log twice",
    hidden="a plot draws both, one over the other",
)
def resumed_log_appended_to(plant: Plant) -> None:
    """Open the log at its end."""
    _open_otherwise(plant, "a")


@defect(
    "resumed-log-begun-anew",
    kind=SOURCE,
    imitates="a logger that opens its file for writing at every start",
    symptom="the steps before the resume are gone",
    hidden="every line that is left is right",
)
def resumed_log_begun_anew(plant: Plant) -> None:
    """Open the log empty."""
    _open_otherwise(plant, "w")


@defect(
    "resumed-log-not-looked-into",
    kind=SOURCE,
    imitates="a log that is cut by counting its lines",
    symptom="a run goes on behind a log that lacks steps, or is of another run",
    hidden="of the right log the right lines are kept",
)
def resumed_log_not_looked_into(plant: Plant) -> None:
    """Keep as many lines as steps, whatever they say."""

    def make(original: Any) -> Any:
        def length_of(path: Path, steps: int) -> int:
            lines = path.read_bytes().splitlines(keepends=True)[:steps]
            length = sum(map(len, lines))
            plant.effect(b'"step": 0,' not in b"".join(lines[:1]) or len(lines) < steps)
            return length

        return length_of

    plant.patch("trainer.run.metrics:_length_of", make)


class _CountsFromZero(InstanceWrapper):
    def run(self, batches: Any, *, first_step: int = 0, **options: Any) -> Any:
        """The same run; steps after the resume are numbered from 0 again."""
        result = self.inner.run(batches, first_step=first_step, **options)
        late = [{**line, "step": line["step"] - first_step} for line in result.logged[first_step:]]
        self.plant.effect(first_step > 0 and bool(late))
        return replace(result, logged=[*result.logged[:first_step], *late])


@defect(
    "resumed-log-counts-from-zero",
    kind=PROTOCOL,
    imitates="a step counter that lives in the loop and not in the checkpoint",
    symptom="the steps after a resume have the numbers of the first ones",
    hidden="losses and rates are right, line by line",
)
def resumed_log_counts_from_zero(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _CountsFromZero)
