"""What campaigns found: the lines of campaign.jsonl as typed values, joined claim by claim."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aprverify.campaign.bounds import upper_bound
from aprverify.campaign.journal import CAMPAIGN_FILE, Line, read_lines
from aprverify.campaign.seeds import drawn
from aprverify.evidence.refusals import CountMismatch, UnknownTest
from aprverify.evidence.values import decode


@dataclass(frozen=True)
class Shave:
    """The evaluation of a comparison that came closest to failing. `used`: of its tolerance."""

    used: float
    case: str
    seed: int
    observed: Any
    op: str
    bound: Any

    @property
    def counts(self) -> bool:
        """Whether both sides are whole numbers, which may stand at a bound."""
        return type(self.observed) is int and type(self.bound) is int


@dataclass(frozen=True)
class Campaign:
    """One campaign.jsonl. `sessions`, `tests`, `lots` and `ends` are its lines."""

    path: Path
    sessions: tuple[Line, ...]
    tests: Mapping[str, Line]
    lots: tuple[Line, ...]
    ends: tuple[Line, ...]

    @property
    def name(self) -> str:
        """What the campaign is called."""
        return str(self.sessions[0]["campaign"])

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return str(self.sessions[0]["device"])

    @property
    def verdicts(self) -> int:
        """How many evaluations held or were falsified."""
        return sum(lot["verdicts"] for lot in self.lots)

    @property
    def alarms(self) -> int:
        """How many evaluations were falsified."""
        return sum(len({found["seed"] for found in lot["falsified"]}) for lot in self.lots)

    @property
    def broken(self) -> int:
        """How many ended without a verdict, other than by not running."""
        outcomes = (one["outcome"] for lot in self.lots for one in lot["without_verdict"])
        return sum(outcome != "not_run" for outcome in outcomes)


@dataclass
class Compared:
    """One comparison over all evaluations. `used`: of those with a tolerance."""

    text: str
    used: list[float] = field(default_factory=list)
    worst: Shave | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether it is a count that no seed changes, as ``9 of at most 9``: no shave at all."""
        return self.worst is not None and self.worst.counts and len(set(self.used)) == 1

    def quantile(self, share: float) -> float:
        """The value that this share of the evaluations does not exceed; NaN without any."""
        ordered = sorted(self.used)
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


@dataclass
class Found:
    """One claim over all evaluations.

    Attributes:
        verdicts: evaluations by device, each seed of a case once.
        falsified: those that were falsified: case with its seed.
        seed_read: whether the falsifier was ever seen to ask for its seed.
    """

    test: str
    contract: str
    claim: str
    alpha: float | None
    verdicts: dict[str, int] = field(default_factory=dict)
    falsified: list[str] = field(default_factory=list)
    seed_read: bool = False
    comparisons: dict[str, Compared] = field(default_factory=dict)

    @property
    def is_unvaried(self) -> bool:
        """Whether it was evaluated under seeds that its falsifier never asked for."""
        return self.total > 0 and not self.seed_read

    @property
    def total(self) -> int:
        """Evaluations on all devices."""
        return sum(self.verdicts.values())

    @property
    def upper_bound(self) -> float:
        """The rate of false alarms is below it, with 95 % confidence."""
        return upper_bound(len(self.falsified), self.total)

    @property
    def shave(self) -> Compared | None:
        """The comparison that came closest to failing, those that no seed changes last."""
        near = [c for c in self.comparisons.values() if c.worst is not None]
        return max(near, key=_nearness, default=None)


def _nearness(compared: Compared) -> tuple[bool, float]:
    assert compared.worst is not None
    return not compared.is_fixed, compared.worst.used


def read_campaign(path: Path) -> Campaign:
    """The campaign in a folder, or in a campaign.jsonl.

    Raises:
        EvidenceRefused: it is damaged, or contradicts itself.
    """
    file = path / CAMPAIGN_FILE if path.is_dir() else path
    by_kind: dict[str, list[Line]] = defaultdict(list)
    tests: dict[str, Line] = {}
    for number, line in enumerate(read_lines(path), start=1):
        by_kind[line["type"]].append(line)
        if line["type"] == "test":
            tests[line["test"]] = line
        elif line["type"] == "lot":
            _check_lot(file, number, line, tests)
    return Campaign(
        file, tuple(by_kind["session"]), tests, tuple(by_kind["lot"]), tuple(by_kind["end"])
    )


def _check_lot(file: Path, number: int, lot: Line, tests: Mapping[str, Line]) -> None:
    test = tests.get(lot["test"])
    if test is None or lot["case"] not in test["cases"]:
        raise UnknownTest(file, number, f"no test line before declares {_target(lot)}")
    if lot["verdicts"] + len(lot["without_verdict"]) != lot["drawn"]:
        raise CountMismatch(file, number, "verdicts and others are not what was drawn")
    numbers = range(lot["first"], lot["first"] + lot["drawn"])
    seeds = {drawn(_target(lot), n) for n in numbers}
    named = {one["seed"] for one in [*lot["falsified"], *lot["without_verdict"]]}
    named |= {one["worst"]["seed"] for one in lot["compared"] if one}
    if not named <= seeds:
        raise CountMismatch(file, number, "a seed that the rule does not draw here")
    if lot["verdicts"] and len(lot["compared"]) != len(test["comparisons"]):
        raise CountMismatch(file, number, "not as many comparisons as the test makes")
    for one in filter(None, lot["compared"]):
        if isinstance(one["used"], list) and not 0 < len(one["used"]) <= lot["verdicts"]:
            raise CountMismatch(file, number, "not as many values as verdicts")


def _target(lot: Line) -> str:
    return f"{lot['test']}[{lot['case']}]"


def found_in(campaigns: Sequence[Campaign]) -> list[Found]:
    """Every claim of the campaigns, joined, in the order in which they were first met.

    A seed of a case that several campaigns evaluated counts once; what either saw counts. Of a test
    whose files changed only what is about the version of the latest campaign counts.
    """
    found: dict[tuple[str, str], Found] = {}
    seen: dict[str, set[int]] = defaultdict(set)
    latest = latest_source_ids(campaigns)
    for campaign in campaigns:
        current = {
            name: test for name, test in campaign.tests.items() if test["source_id"] == latest[name]
        }
        for name, test in current.items():
            for claim in test["claims"]:
                found.setdefault(
                    (name, claim["id"]), Found(name, test["contract"], claim["id"], claim["alpha"])
                )
        for lot in campaign.lots:
            if (declared := current.get(lot["test"])) is not None:
                new = _new_verdicts(lot, seen[_target(lot)])
                for claim in declared["claims"]:
                    _add(found[lot["test"], claim["id"]], declared, lot, campaign.device, new)
    return list(found.values())


def latest_source_ids(campaigns: Iterable[Campaign]) -> dict[str, str]:
    """The source id of each test in the campaign that began last."""
    ordered = sorted(campaigns, key=lambda campaign: str(campaign.sessions[0]["started"]))
    return {name: t["source_id"] for campaign in ordered for name, t in campaign.tests.items()}


def _new_verdicts(lot: Line, seen: set[int]) -> int:
    """How many verdicts of a lot are of seeds that were not seen before."""
    without = {one["seed"] for one in lot["without_verdict"]}
    numbers = range(lot["first"], lot["first"] + lot["drawn"])
    seeds = {drawn(_target(lot), number) for number in numbers} - without
    new = len(seeds - seen)
    seen |= seeds
    return new


def _add(found: Found, test: Line, lot: Line, device: str, new: int) -> None:
    found.verdicts[device] = found.verdicts.get(device, 0) + new
    found.seed_read = found.seed_read or lot["seed_read"]
    for one in lot["falsified"]:
        key = f"{lot['test']}[{_with_seed(lot['case'], one['seed'])}]"
        if one["claim"] == found.claim and key not in found.falsified:
            found.falsified.append(key)
    for made, one in zip(test["comparisons"], lot["compared"], strict=False):
        if made["claim"] == found.claim:
            text = made["text"]
            compared = found.comparisons.setdefault(text, Compared(text))
            if one is not None:
                _compare(compared, one, lot)


def _with_seed(case: str, seed: int) -> str:
    return f"{case},seed={seed}"


def _compare(compared: Compared, one: Mapping[str, Any], lot: Line) -> None:
    used, worst = one["used"], one["worst"]
    values = used if isinstance(used, list) else [used] * lot["verdicts"]
    compared.used += values
    if compared.worst is None or max(values) > compared.worst.used:
        sides = (decode(worst["observed"]), worst["op"], decode(worst["bound"]))
        compared.worst = Shave(max(values), lot["case"], worst["seed"], *sides)


def given_up(campaigns: Iterable[Campaign]) -> Iterator[tuple[str, str]]:
    """The cases of which no evaluation reached a verdict, each with the first reason."""
    verdicts: dict[str, int] = defaultdict(int)
    reasons: dict[str, str] = {}
    for campaign in campaigns:
        for lot in campaign.lots:
            verdicts[_target(lot)] += lot["verdicts"]
            for one in lot["without_verdict"]:
                reasons.setdefault(_target(lot), f"{one['outcome']}: {one['detail']}")
    for target, reason in reasons.items():
        if not verdicts[target]:
            yield target, reason
