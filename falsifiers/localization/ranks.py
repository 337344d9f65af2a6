"""A run of several ranks against one process that took its steps: which rank is missing, and where.

The twin gave each rank's batch to a step as one micro-batch. The loss and the gradient of each say
what the log of the ranks would hold if one were left out, or counted for all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from falsifiers.localization.findings import UNKNOWN, Finding
from falsifiers.localization.steps import Micro
from falsifiers.reference.gradients import global_norm
from falsifiers.subject import Batch, StepMetrics

_TOLERANCE = 1e-4
"""Relative: sums over ranks in another order differ by less."""


@dataclass(frozen=True)
class TwinStep:
    """A step of one process that took each rank's batch as a micro-batch.

    Attributes:
        metrics: what it reports.
        norms, losses: what it would report if a rank were left out or stood for all, by how.
        alike: two ranks whose batches are the same; None where there are none.
    """

    metrics: StepMetrics
    norms: Mapping[str, float]
    losses: Mapping[str, float]
    alike: tuple[int, int] | None

    @classmethod
    def of(cls, metrics: StepMetrics, ranks: Sequence[Micro], batches: Sequence[Batch]) -> TwinStep:
        """From the metrics, and each rank's own loss, gradients and batch."""
        norms, losses = {}, {}
        for words, shares in _ways(ranks):
            parts = [(m, s) for m, s in zip(ranks, shares, strict=True) if s]
            names = ranks[0].gradients
            norms[words] = global_norm(
                {n: sum(m.gradients[n].double() * s for m, s in parts) for n in names}  # type: ignore[misc]
            )
            losses[words] = sum(m.loss * s for m, s in parts)
        pairs = itertools.combinations(range(len(batches)), 2)
        same = (p for p in pairs if torch.equal(*(batches[i].tokens for i in p)))
        return cls(metrics, norms, losses, next(same, None))


def _ways(ranks: Sequence[Micro]) -> Iterator[tuple[str, list[float]]]:
    targets = [micro.targets for micro in ranks]
    right = [t / sum(targets) for t in targets]
    count = len(ranks)
    for rank in range(count):
        alone = [float(other == rank) for other in range(count)]
        yield f"rank {rank}'s batch alone", alone
        missing = [share * (other != rank) for other, share in enumerate(right)]
        if count > 2:
            yield f"rank {rank} is left out", [s / sum(missing) for s in missing]
        yield f"rank {rank} counts and adds nothing", missing
    yield "summed over ranks, not averaged", [float(count) * share for share in right]
    yield "divided by the number of ranks once more", [share / count for share in right]


def judge_ranks(log: Sequence[Mapping[str, Any]], twin: Sequence[TwinStep]) -> Iterator[Finding]:
    """The first step and quantity in which the ranks' log is not the twin's, and what it is."""
    before = 0.0
    for line, step in zip(log, twin, strict=False):
        if step.alike is not None:
            where = f"step {line.get('step')}, data over ranks"
            said = "ranks {} and {} read the same batch".format(*step.alike)
            yield Finding("data", where, "tokens", math.inf, said)
            return
        left = {"not cleared": math.hypot(before, step.metrics.grad_norm)}
        before = step.metrics.grad_norm
        checks: tuple[tuple[str, str, Mapping[str, float]], ...] = (
            ("schedule", "lr", {}),
            ("forward", "train_loss", step.losses),
            ("backward", "grad_norm", {**step.norms, **left}),
        )
        for phase, name, ways in checks:
            ours, exact = line.get(name), float(getattr(step.metrics, name))
            times = _times(ours, exact)
            if times > 1.0:
                fits = [w for w, other in ways.items() if _times(ours, other) <= 1.0]
                said = fits[0] if fits else UNKNOWN
                where = f"step {line.get('step')}, {phase} over ranks"
                yield Finding(phase, where, name, times, f"{said}: {ours!r}, not {exact:.6g}")
                return


def _times(ours: Any, exact: float) -> float:
    if isinstance(ours, bool) or not isinstance(ours, int | float):
        return math.inf
    if ours == exact:
        return 0.0
    return abs(ours - exact) / (_TOLERANCE * abs(exact)) if exact else math.inf
