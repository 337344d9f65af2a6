"""Entries that a run leaves out for what they cost, so that most of a gate is had in minutes.

What one costs is known from committed runs: the least of its times there, since whatever comes
first in a process pays for imports and compilers too. With a claim go the defects planted under the
same case: what the claim made and they share would be made by the first of them, and cost as much.
What no run has tried is never left out.
The list is made once and handed to every process of the run as a file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aprverify.evidence.records import VERDICTS, Run, TooDear

FILE = "too-dear.json"


@dataclass(frozen=True)
class DearEntries:
    """The keys of entries that take longer than `seconds` each, or go with a claim that does."""

    seconds: float
    keys: frozenset[str]

    def write(self, path: Path) -> None:
        """Write what `read_dear_entries` reads."""
        path.write_text(json.dumps({"seconds": self.seconds, "keys": sorted(self.keys)}))

    def among(self, planned: Iterable[str]) -> TooDear | None:
        """How many of the keys of a plan these are; None where there are none."""
        entries = len(self.keys & set(planned))
        return TooDear(self.seconds, entries) if entries else None


def dear_entries(runs: Iterable[Run], seconds: float) -> DearEntries:
    """What took longer than `seconds` whenever one of `runs` came to a verdict on it."""
    least: dict[str, float] = {}
    planted: dict[str, set[str]] = defaultdict(set)
    for row in (row for run in runs for row in run.rows):
        if row.defect is not None:
            planted[row.key.removesuffix(f"!{row.defect}")].add(row.key)
        if row.outcome in VERDICTS:
            least[row.key] = min(row.seconds, least.get(row.key, row.seconds))
    dear = {key for key, took in least.items() if took > seconds}
    return DearEntries(seconds, frozenset(dear.union(*(planted[key] for key in dear))))


def read_dear_entries(path: Path) -> DearEntries:
    """What `DearEntries.write` wrote."""
    body = json.loads(path.read_text())
    return DearEntries(float(body["seconds"]), frozenset(body["keys"]))
