"""Runs of several ranks whose log says what such a run must not say."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.edited_runs import Edit, edit_json, edit_lines, edit_log, edit_runs


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


@defect(
    "ranks-talk-by-sockets",
    kind=SOURCE,
    imitates="a container without peer access or shared memory between its GPUs: NCCL falls back",
    symptom="gradients travel through the host's network stack, and every step waits for them",
    hidden="all numbers are right; only a line of NCCL's own log tells",
)
def ranks_talk_by_sockets(plant: Plant) -> None:
    """Forbid NCCL its other ways before it connects."""

    def make(connect: Any) -> Any:
        def connect_by_sockets(backend: str, *args: Any, **options: Any) -> None:
            plant.effect("nccl" in backend)
            os.environ.update(NCCL_P2P_DISABLE="1", NCCL_SHM_DISABLE="1")
            connect(backend, *args, **options)

        return connect_by_sockets

    plant.patch("trainer.parallel.process_group:dist.init_process_group", make)


def _throughput_times(factor: float) -> Edit:
    """An edit of the throughput of runs that several ranks share."""
    change = edit_lines(lambda line: {"tokens_per_sec": factor * line["tokens_per_sec"]})

    def edit(run: Path) -> None:
        if json.loads((run / "run.json").read_text())["identity"]["world_size"] > 1:
            change(run)

    return edit


@defect(
    "reduction-after-the-backward",
    kind=PROTOCOL,
    imitates="one reduction of all gradients when the backward pass is over",
    symptom="a tenth of every shared step is waiting",
    hidden="two GPUs are still much faster than one",
)
def reduction_after_the_backward(plant: Plant) -> None:
    """Let shared steps take a ninth longer."""
    edit_runs(plant, _throughput_times(0.9))


@defect(
    "throughput-of-one-rank",
    kind=PROTOCOL,
    imitates="a log that counts the tokens of the rank that writes it",
    symptom="two GPUs seem no faster than one",
    hidden="it is the very number that one GPU would log",
)
def throughput_of_one_rank(plant: Plant) -> None:
    """Count half of the tokens of shared steps."""
    edit_runs(plant, _throughput_times(0.5))


@defect(
    "ranks-counted-twice",
    kind=PROTOCOL,
    imitates="a throughput multiplied by the number of ranks once in the step and once in the log",
    symptom="two GPUs seem four times as fast as one, and whatever they wait for goes unseen",
    hidden="faster than expected is seldom looked into",
)
def ranks_counted_twice(plant: Plant) -> None:
    """Count the tokens of shared steps twice."""
    edit_runs(plant, _throughput_times(2.0))
