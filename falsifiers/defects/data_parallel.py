"""Runs of several ranks whose log says what such a run must not say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.edited_runs import edit_json, edit_lines, edit_log, edit_runs


@defect(
    "ranks-keep-their-gradients",
    kind=SOURCE,
    imitates="no_sync() around the last micro-batch as well (build-nanogpt#30)",
    symptom="each rank steps with its own gradient, and k models are trained",
    hidden="the logged loss is the mean over all ranks, and falls",
)
def ranks_keep_their_gradients(plant: Plant) -> None:
    """Send no bucket, and wait for none."""

    def begin(own: Any) -> None:
        plant.effect(True)

    plant.patch("trainer.parallel.replicated:BucketedReduction.begin", lambda _: begin)
    plant.patch("trainer.parallel.replicated:BucketedReduction.wait", lambda _: lambda own: None)


def _together(lines: list[Any]) -> list[Any]:
    norms = [line["grad_norm"] for line in lines]
    before = [0.0, *norms]
    return [
        {**line, "grad_norm": math.hypot(norm, left)}
        for line, norm, left in zip(lines, norms, before, strict=False)
    ]


@defect(
    "norms-of-two-steps-together",
    kind=PROTOCOL,
    imitates="a bucket that is added to instead of written, and cleared one step late",
    symptom="each norm is that of its own gradient and the one before together",
    hidden="the first step is right, and norms look a little larger",
)
def norms_of_two_steps_together(plant: Plant) -> None:
    """Add the squares of neighbours, as if their gradients were orthogonal."""
    edit_runs(plant, edit_log(_together))


@defect(
    "norms-summed-over-ranks",
    kind=PROTOCOL,
    imitates="torchtitan#1551, pytorch#160285: gradients summed instead of averaged",
    symptom="every norm is twice that of the mean",
    hidden="the loss is identical, and Adam divides the factor out again",
)
def norms_summed_over_ranks(plant: Plant) -> None:
    """Double the norms."""
    edit_runs(plant, edit_lines(lambda line: {"grad_norm": 2 * line["grad_norm"]}))


def _peer_lost(run: Path) -> None:
    edit_json(run / "outcome.json", lambda outcome: outcome.update(status="PEER_LOST"))


@defect(
    "halted-run-says-peer-lost",
    kind=PROTOCOL,
    imitates="a guard on each rank's own numbers: one halts, the other finds it gone",
    symptom="the run ends with PEER_LOST, and nobody is told of the number that was not finite",
    hidden="a lost peer sounds like a broken cable",
)
def halted_run_says_peer_lost(plant: Plant) -> None:
    """Name the wrong status."""
    edit_runs(plant, _peer_lost)
