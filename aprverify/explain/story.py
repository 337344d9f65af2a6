"""What is told of a run, as plain data: a terminal and a machine read the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aprverify.explain.planted import Cause


@dataclass(frozen=True)
class Broken:
    """A comparison that does not hold. `margin` is in units of the tolerance; 0 is at the bound."""

    claim: str
    claimed: str
    text: str
    observed: Any
    bound: str
    margin: float | None


@dataclass(frozen=True)
class FailedTest:
    """One test of a group of failures, with the cases that failed.

    Attributes:
        rule: the claim in words.
        invariants: what it stands for, with their rules as far as the run records them.
        only_with: what all its failed cases have and none of its held ones, as ``arch=tiny``.
        told_by: the failed entry that is cheapest to run again; what follows is read from it.
        broken: its comparisons that do not hold.
        held_claims: its claims that hold.
        divergence: where it went wrong first, or worst, as far as the row says.
        first_at_fault: what was named when its failed entries ran once more, watched, or why
            nothing was; empty where that was not tried.
        held_cases: how many of its cases held in this run.
    """

    contract: str
    test: str
    rule: str
    invariants: tuple[str, ...]
    if_fails: str
    place: str
    failed: tuple[str, ...]
    held_cases: int
    only_with: tuple[str, ...]
    told_by: str
    broken: tuple[Broken, ...]
    held_claims: tuple[str, ...]
    divergence: tuple[str, ...]
    first_at_fault: tuple[str, ...]


@dataclass(frozen=True)
class Behind:
    """What a contract says it exists for, as far as the run records it."""

    contract: str
    motivation: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Surroundings:
    """What else the run found: it narrows down what can be wrong.

    Attributes:
        failed_same, failed_other: other failed tests, of the same contracts and of others.
        held_same: tests of the same contracts of which every case that ran held.
        held_other: how many tests of other contracts held, and of how many contracts.
    """

    failed_same: tuple[str, ...]
    failed_other: tuple[str, ...]
    held_same: tuple[str, ...]
    held_other: tuple[int, int]


@dataclass(frozen=True)
class Reproduction:
    """How to see it again.

    Attributes:
        entry: runs this entry and nothing else.
        recorded: leaves a run with its report.
        others: how many other entries `recorded` runs too, since ``-k`` cannot tell them apart.
        needs: what must be at hand before, one sentence each.
    """

    entry: str
    recorded: str
    others: int
    needs: tuple[str, ...]
    seed: str
    commit: str
    machine: str
    versions: str


@dataclass(frozen=True)
class Failure:
    """Failed claims that are told as one.

    Attributes:
        key: the entry that is cheapest to run again; `reproduction` is of it.
        causes: planted defects that it looks like, of all that its tests are known to catch.
        compared: how many defects that were.
        already_there: defects whose planting changed nothing in this run.
        next: commands that narrow it down further.
    """

    key: str
    tests: tuple[FailedTest, ...]
    behind: tuple[Behind, ...]
    surroundings: Surroundings
    causes: tuple[Cause, ...]
    compared: int
    already_there: tuple[str, ...]
    reproduction: Reproduction
    next: tuple[str, ...]


@dataclass(frozen=True)
class Other:
    """Entries that are no failed claim and no success: what it means, and what to do.

    `kind`: survived, broken, inconclusive or not_run. `again`: the command that runs the first of
    them once more; empty for what cannot run here.
    """

    kind: str
    headline: str
    entries: tuple[str, ...]
    said: str
    meaning: str
    do: str
    again: str


@dataclass(frozen=True)
class Story:
    """All that is told. `closest`: what came nearest to failing, where nothing failed."""

    run_id: str
    sha256: str
    subject: str
    about: str
    verdict: str
    notes: tuple[str, ...]
    failures: tuple[Failure, ...]
    others: tuple[Other, ...]
    closest: tuple[str, ...]
    not_shown: str
