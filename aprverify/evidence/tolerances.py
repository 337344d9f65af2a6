"""Tolerances on trial: does each stand between what is clean and the smallest planted effect?

Of every comparison with a tolerance, by dtype: the *floor*, the largest share of the tolerance that
anything clean used; the *effect*, the smallest share of those planted defects that failed this very
comparison; and the largest of those that moved it beyond the floor and that it let through. All are
shares of the tolerance, so that bounds that depend on the case can be told together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aprverify.campaign.results import Campaign
from aprverify.evidence.closest import tolerance_margin
from aprverify.evidence.records import Comparison, Row, Run
from aprverify.evidence.versions import newest_source_ids

VACUOUS, SEPARATES = "VACUOUS", "separates"
UNTRIED, LIMIT = "no planted effect", "limit"
VERDICTS = (VACUOUS, SEPARATES, UNTRIED, LIMIT)
"""`LIMIT`: something clean stands exactly at the bound, which noise never does: it is no tolerance
but the largest value that there can be, as 1 of a probability."""
_MOVED = 2.0
"""An effect is beyond the floor from twice the floor on: between lies what another seed does."""
Key = tuple[str, str, str, str]
"""Test, claim, text of the comparison, dtype."""


@dataclass(frozen=True)
class Seen:
    """One value of a comparison. `used`: its share of the tolerance; `where`: entry, or seed."""

    used: float
    observed: Any
    op: str
    bound: Any
    where: str


@dataclass
class Trial:
    """One comparison under one dtype.

    Attributes:
        clean: how many clean values the floor is the largest of.
        devices: where they were taken.
        floor: None where nothing clean was measured.
        effect: the smallest effect that failed it.
        through: the largest effect beyond the floor that it let through.
        elsewhere: the smallest effect that failed it under another dtype.
    """

    test: str
    claim: str
    text: str
    dtype: str
    clean: int = 0
    devices: set[str] = field(default_factory=set)
    floor: Seen | None = None
    effect: Seen | None = None
    through: Seen | None = None
    elsewhere: Seen | None = None

    @property
    def below(self) -> float:
        """The tolerance, in units of the floor."""
        if self.floor is None or self.floor.used <= 0:
            return math.inf
        return 1 / self.floor.used

    @property
    def above(self) -> float:
        """The smallest effect that failed it, in units of the tolerance; NaN without one."""
        return math.nan if self.effect is None else self.effect.used

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        if self.floor is not None and self.floor.observed == self.floor.bound:
            return LIMIT
        if self.below <= 1:
            return VACUOUS
        if self.effect is not None:
            return SEPARATES
        return UNTRIED if self.through is None else VACUOUS

    @property
    def thinnest(self) -> float:
        """The smaller of the two margins, as a factor."""
        return self.below if self.effect is None else min(self.below, self.above)


@dataclass(frozen=True)
class Trials:
    """All comparisons with a tolerance, and what was left out because files changed since."""

    found: tuple[Trial, ...]
    stale_rows: int
    stale_campaigns: tuple[str, ...]


def trials_of(runs: Sequence[Run], campaigns: Sequence[Campaign]) -> Trials:
    """The thinnest margin first, then what has no planted effect.

    Only what is about the newest version of a test's files counts, of those that the runs know.
    """
    current = newest_source_ids(runs)
    rows = [row for run in runs for row in run.rows if row.outcome not in ("not_run", "broken")]
    fresh = [row for row in rows if current[row.key] == row.source_id]
    trials: dict[Key, Trial] = {}
    for row in fresh:
        if row.defect is None:
            _add_clean(trials, row)
    versions = _versions(fresh)
    left_out = []
    for campaign in campaigns:
        left_out += list(_add_campaign(trials, campaign, versions))
    _add_planted(trials, (row for row in fresh if row.defect is not None))
    _look_elsewhere(trials.values())
    found = sorted(trials.values(), key=_order)
    return Trials(tuple(found), len(rows) - len(fresh), tuple(left_out))


def _order(trial: Trial) -> tuple[int, float, str, str, str]:
    return VERDICTS.index(trial.verdict), trial.thinnest, trial.test, trial.claim, trial.dtype


def _versions(rows: Iterable[Row]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.defect is None:
            found[row.test].add(row.source_id)
    return found


def _measured(row: Row) -> Iterator[tuple[Comparison, float]]:
    """The comparisons of a row that have a tolerance and are no counts, with their shares."""
    for one in row.comparisons:
        margin = tolerance_margin(one, row.comparisons)
        if margin is not None and not _is_count(one.observed, one.bound):
            yield one, 1 - margin


def _is_count(observed: Any, bound: Any) -> bool:
    return type(observed) is int and type(bound) is int


def _trial(trials: dict[Key, Trial], test: str, claim: str, text: str, dtype: str) -> Trial:
    return trials.setdefault((test, claim, text, dtype), Trial(test, claim, text, dtype))


def _add_clean(trials: dict[Key, Trial], row: Row) -> None:
    for one, used in _measured(row):
        trial = _trial(trials, row.test, one.claim, one.text, str(row.case.get("dtype", "–")))
        trial.clean += 1
        trial.devices.add(row.device)
        _raise(trial, Seen(used, one.observed, one.op, one.bound, row.case_id))


def _raise(trial: Trial, seen: Seen) -> None:
    if trial.floor is None or seen.used > trial.floor.used:
        trial.floor = seen


def _add_campaign(
    trials: dict[Key, Trial], campaign: Campaign, versions: dict[str, set[str]]
) -> Iterator[str]:
    """Raise floors by what a campaign saw; yields the tests that it knows another version of."""
    for name, test in campaign.tests.items():
        if test["source_id"] not in versions[name]:
            yield f"{name} in {campaign.name}"
    for lot in campaign.lots:
        test = campaign.tests[lot["test"]]
        if test["source_id"] not in versions[lot["test"]]:
            continue
        dtype = _parameters(lot["case"]).get("dtype", "–")
        for made, one in zip(test["comparisons"], lot["compared"], strict=False):
            if one is None or _is_count(one["worst"]["observed"], one["worst"]["bound"]):
                continue
            values = one["used"]
            trial = _trial(trials, lot["test"], made["claim"], made["text"], dtype)
            trial.clean += len(values) if isinstance(values, list) else lot["verdicts"]
            trial.devices.add(campaign.device)
            worst = one["worst"]
            largest = max(values) if isinstance(values, list) else values
            where = f"{lot['case']}, seed {worst['seed']}"
            _raise(trial, Seen(largest, worst["observed"], worst["op"], worst["bound"], where))


def _parameters(case: str) -> dict[str, str]:
    """The parameters of a case id."""
    pairs = (part.partition("=") for part in case.split(","))
    return {name: value for name, _, value in pairs}


def _add_planted(trials: dict[Key, Trial], rows: Iterable[Row]) -> None:
    for row in rows:
        for one, used in _measured(row):
            dtype = str(row.case.get("dtype", "–"))
            trial = _trial(trials, row.test, one.claim, one.text, dtype)
            seen = Seen(used, one.observed, one.op, one.bound, f"{row.defect}, {row.case_id}")
            if not one.holds:
                if trial.effect is None or used < trial.effect.used:
                    trial.effect = seen
            elif _is_beyond(trial.floor, used) and (
                trial.through is None or used > trial.through.used
            ):
                trial.through = seen


def _look_elsewhere(trials: Iterable[Trial]) -> None:
    """Give what has no effect of its own that of another dtype: relative errors are much alike."""
    by_text: dict[tuple[str, str, str], list[Trial]] = defaultdict(list)
    for trial in trials:
        by_text[trial.test, trial.claim, trial.text].append(trial)
    for alike in by_text.values():
        effects = [trial.effect for trial in alike if trial.effect is not None]
        for trial in alike:
            if trial.effect is None and effects:
                trial.elsewhere = min(effects, key=lambda seen: seen.used)


def _is_beyond(floor: Seen | None, used: float) -> bool:
    return floor is not None and used > _MOVED * max(floor.used, 0.0)
