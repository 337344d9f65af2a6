"""A process that evaluates cases under drawn seeds, as it is told on its standard input.

    python -m aprverify.campaign.worker SUITE SUBJECT LIMIT [NAME=FILE …]

One JSON object a line in, one a line out. ``{"target": KEY, "seeds": […]}`` is answered once a
seed, in order: outcome, comparisons, and whether the falsifier asked for its seed at all.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from aprverify.campaign.targets import SeedWatchingCase, Target, targets_of
from aprverify.contract.model import DEVICES
from aprverify.environment import describe_environment
from aprverify.evidence.closest import tolerance_margin
from aprverify.evidence.records import Comparison
from aprverify.evidence.values import encode
from aprverify.matrix.trial import Trials
from aprverify.plan import Entry
from aprverify.plugin.attempt import Attempt
from aprverify.plugin.state import State, state_of_worker
from aprverify.talk import Answers, orders

_LONGEST_DETAIL = 500


class Worker:
    """Answers one order after another."""

    def __init__(self, state: State, limit: float, answers: Answers) -> None:
        self._answers = answers
        self._trials = Trials(state, limit)
        found = (t for device in DEVICES for t in targets_of(state.entries, device, ()))
        self._targets: Mapping[str, Target] = {target.key: target for target in found}

    def obey(self, order: Mapping[str, Any]) -> None:
        """Do it, and answer."""
        if "environment" in order:
            self._answers.give({"environment": describe_environment()})
            return
        target = self._targets[order["target"]]
        for seed in order["seeds"]:
            self._answers.give(evaluated(self._trials, target.with_seed(seed)))


def evaluated(trials: Trials, entry: Entry) -> dict[str, Any]:
    """What one clean evaluation came to."""
    begun = time.perf_counter()
    attempt = trials.clean(entry)
    case = entry.case
    return {
        "outcome": attempt.outcome,
        "seconds": round(time.perf_counter() - begun, 5),
        "detail": (attempt.reason or {}).get("detail", "")[:_LONGEST_DETAIL],
        "read": not isinstance(case, SeedWatchingCase) or case.was_read,
        "comparisons": list(_compared(attempt)),
    }


def _compared(attempt: Attempt) -> Iterable[dict[str, Any]]:
    beside = [Comparison(claim=claim, **asdict(found)) for claim, found in attempt.comparisons]
    for one in beside:
        yield {
            "claim": one.claim,
            "text": one.text,
            "op": one.op,
            "observed": encode(one.observed),
            "bound": encode(one.bound),
            "holds": one.holds,
            "used": _used(one, beside),
        }


def _used(comparison: Comparison, beside: list[Comparison]) -> float | None:
    """The share of its tolerance that a comparison used; None where it has none."""
    margin = tolerance_margin(comparison, beside)
    return None if margin is None else float(f"{1 - margin:.4g}")


def main() -> None:
    """Obey until the input ends."""
    _, suite, subject, limit, *assets = sys.argv
    answers = Answers()
    worker = Worker(state_of_worker(suite, subject, assets), float(limit), answers)
    for order in orders():
        worker.obey(order)


if __name__ == "__main__":
    main()
