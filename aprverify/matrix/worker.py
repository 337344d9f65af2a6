"""A process that crosses defects with falsifiers, as it is told on its standard input.

    python -m aprverify.matrix.worker SUITE SUBJECT LIMIT [NAME=FILE …]

One JSON object a line in, one a line out. ``{"watch": KEY}`` runs a falsifier clean; the answer
says whether it held and stayed in this process, its seconds, the defects that replace nothing that
it calls, and those that pass on all that it asks for. ``{"defect": ID, "keys": […]}`` crosses one
defect with falsifiers: an answer for each as it comes, then one with the canary.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from aprverify.environment import describe_environment
from aprverify.matrix.asked import Asked, passes_on
from aprverify.matrix.reach import Place, replaced, watched
from aprverify.matrix.trial import Trials
from aprverify.plan import Entry
from aprverify.planting import PROTOCOL, call_by_name
from aprverify.plugin.state import State, state_of_worker
from aprverify.talk import Answers, orders


class Worker:
    """Answers one order after another."""

    def __init__(self, state: State, limit: float, answers: Answers) -> None:
        self._state, self._answers = state, answers
        self._trials = Trials(state, limit)
        self._entries: Mapping[str, Entry] = {entry.key: entry for entry in state.entries}

    def obey(self, order: Mapping[str, Any]) -> None:
        """Do it, and answer."""
        if "watch" in order:
            self._answers.give(self._watch(self._entries[order["watch"]]))
        elif "defect" in order:
            self._cross(order["defect"], order["keys"])
        else:
            self._answers.give({"environment": describe_environment()})

    def _watch(self, entry: Entry) -> dict[str, Any]:
        called: set[Place] = set()
        asked = Asked()
        with watched(called) as seen:
            first = self._trials.clean(entry, asked)
        begun = time.perf_counter()
        again = self._trials.clean(entry)  # without a watch, and with everything imported
        seconds = round(time.perf_counter() - begun, 5)
        never = [d for d, places in self._replaced.items() if not places & called]
        return {
            "held": first.outcome == again.outcome == "held",
            "seconds": seconds,
            "in_process": seen.in_process,
            "never_called": never if seen.in_process else [],
            "passed_on": self._passed_on(asked) if seen.in_process else [],
        }

    def _passed_on(self, asked: Asked) -> list[str]:
        """Protocol defects that change nothing of what was asked for."""
        protocol = (d for d in self._state.defects.values() if d.kind == PROTOCOL)
        return [defect.id for defect in protocol if passes_on(defect, asked)]

    @cached_property
    def _replaced(self) -> dict[str, frozenset[Place]]:
        """What source defects replace, of those that only replace functions."""
        sources = (d for d in self._state.defects.values() if d.kind != PROTOCOL)
        found = {defect.id: replaced(defect) for defect in sources}
        return {name: places for name, places in found.items() if places is not None}

    def _cross(self, defect: str, keys: list[str]) -> None:
        clean = self._state.canary
        for key in keys:
            self._answers.give(self._trials.cross(replace(self._entries[key], defect=defect)))
        same = call_by_name(self._state.suite.canary) == clean
        self._answers.give({"canary": "same" if same else "different"})


def main() -> None:
    """Obey until the input ends."""
    _, suite_name, subject, limit, *assets = sys.argv
    answers = Answers()
    worker = Worker(state_of_worker(suite_name, subject, assets), float(limit), answers)
    for order in orders():
        worker.obey(order)


if __name__ == "__main__":
    main()
