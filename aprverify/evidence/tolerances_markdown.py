"""Tolerances on trial as a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from aprverify.campaign.results import Campaign
from aprverify.evidence.markdown import clip, code, count, details, escape, number, table
from aprverify.evidence.records import Run
from aprverify.evidence.tolerances import (
    LIMIT,
    SEPARATES,
    UNTRIED,
    VACUOUS,
    Seen,
    Trial,
    Trials,
)

_WIDTH = 90
_HEAD = ("test", "comparison", "dtype", "below", "above", "floor, tolerance", "clean values")


def render_tolerances(trials: Trials, runs: Sequence[Run], campaigns: Sequence[Campaign]) -> str:
    """The page, Markdown; a pure function of what it is given."""
    seen = Counter(trial.verdict for trial in trials.found)
    parts = [
        [_not_shown(trials, seen)],
        ["# Tolerances on trial", "", *_about(trials, seen)],
        _section(VACUOUS, trials.found, "nothing separates clean from planted"),
        _section(SEPARATES, trials.found, "between clean and planted"),
        _section(UNTRIED, trials.found, "no declared defect fails this very comparison"),
        _section(LIMIT, trials.found, "attained exactly by something clean"),
        _sources(runs, campaigns),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _not_shown(trials: Trials, seen: Counter[str]) -> str:
    parts = [
        f"{seen[UNTRIED]} of {count(len(trials.found), 'tolerance')} that no declared "
        "defect puts to the test",
        "defects other than those declared, each under one case a device",
        "exact claims, which have no tolerance",
    ]
    if trials.stale_rows:
        parts.append(f"{count(trials.stale_rows, 'row')} about earlier versions of the files")
    if trials.stale_campaigns:
        parts.append(
            f"{count(len(trials.stale_campaigns), 'test')} of campaigns about other versions"
        )
    return f"**Not shown:** {'; '.join(parts)}."


def _about(trials: Trials, seen: Counter[str]) -> list[str]:
    told = ", ".join(f"{amount} {verdict}" for verdict, amount in sorted(seen.items()))
    return [
        f"{count(len(trials.found), 'tolerance')} by test, comparison and dtype: {told}.",
        "",
        "*Floor*: the worst of everything clean, over seeds, cases and devices. *Effect*: the "
        "smallest of the planted defects that failed this very comparison. *Let through*: the "
        "largest that moved it beyond twice the floor and held, where another claim caught it. "
        "*Below*: tolerance ÷ floor; *above*: effect ÷ tolerance. VACUOUS: something clean "
        "reaches the tolerance, or all that was planted here stays within it. Limit: something "
        "clean stands exactly at the bound, as 1 of a probability; that is no tolerance. The "
        "thinnest margin first.",
    ]


def _section(verdict: str, found: Sequence[Trial], what: str) -> list[str]:
    chosen = [trial for trial in found if trial.verdict == verdict]
    if not chosen:
        return []
    beside = "under another dtype" if verdict == UNTRIED else "let through"
    head = (*_HEAD, "smallest effect", beside)
    lines = table(head, map(_row, chosen), "lllrrlrll")
    return [f"## {verdict}: {what}", "", *lines]


def _row(trial: Trial) -> list[str]:
    devices = ", ".join(sorted(trial.devices))
    return [
        escape(trial.test),
        escape(f"{trial.claim}: {trial.text}"),
        escape(trial.dtype),
        number(trial.below),
        "–" if math.isnan(trial.above) else number(trial.above),
        _sides(trial.floor),
        f"{trial.clean} ({escape(devices)})",
        _planted(trial.effect),
        _planted(trial.through if trial.verdict != UNTRIED else trial.elsewhere),
    ]


def _sides(seen: Seen | None) -> str:
    if seen is None:
        return "–"
    return escape(f"{number(seen.observed)} {seen.op} {number(seen.bound)}")


def _planted(seen: Seen | None) -> str:
    if seen is None:
        return "–"
    return escape(clip(f"{number(seen.observed)}: {seen.where.partition(',')[0]}", _WIDTH))


def _sources(runs: Sequence[Run], campaigns: Sequence[Campaign]) -> list[str]:
    rows = [[code(run.header.run_id), "run", run.header.started] for run in runs]
    rows += [
        [code(campaign.name), f"campaign, {campaign.device}", campaign.sessions[0]["started"]]
        for campaign in campaigns
    ]
    return details("Made from", table(("name", "what", "began"), rows))
