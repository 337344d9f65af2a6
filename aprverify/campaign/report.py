"""The report of one campaign or several: a pure function of their lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aprverify.campaign.results import (
    Campaign,
    Compared,
    Found,
    found_in,
    given_up,
    latest_source_ids,
)
from aprverify.evidence.markdown import code, count, details, escape, number, table

NEAR = 0.5
"""A share of a tolerance above which a closest shave is looked into."""


def render_campaigns(campaigns: Sequence[Campaign]) -> str:
    """The report, Markdown."""
    found = found_in(campaigns)
    wanted = max(c.sessions[0]["evaluations"] for c in campaigns)
    varied = [one for one in found if not one.is_unvaried]
    parts = [
        [_not_shown(varied, wanted, campaigns)],
        ["# Clean evaluations under drawn seeds", "", *_summary(varied, wanted)],
        _alarms(varied),
        _closest(varied),
        _short(varied, wanted),
        _done(varied, wanted),
        _unvaried(found),
        _not_run(campaigns),
        _older(campaigns),
        _provenance(campaigns),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _not_shown(found: Sequence[Found], wanted: int, campaigns: Sequence[Campaign]) -> str:
    short = sum(one.total < wanted for one in found)
    gaps = [f"{short} of {count(len(found), 'claim')} with fewer than {wanted} evaluations"]
    missing = {"cpu", "cuda"} - {campaign.device for campaign in campaigns}
    gaps += [f"{device}: no campaign ran there" for device in sorted(missing)]
    gaps.append("tests without a seed, and whatever a seed does not vary: shapes, architectures")
    gaps.append("that evaluations are independent and of one rate, which the bounds take for given")
    gaps.append("faults: a campaign says nothing of what the claims would miss")
    return f"**Not shown:** {'; '.join(gaps)}."


def _summary(found: Sequence[Found], wanted: int) -> Iterator[str]:
    alarms = sum(len(one.falsified) for one in found)
    reached = sum(one.total >= wanted for one in found)
    tests = {one.test: one.total for one in found}
    evaluations = count(sum(tests.values()), "clean evaluation")
    yield (
        f"{evaluations} of {count(len(tests), 'seeded test')} with "
        f"{count(len(found), 'claim')}: **{count(alarms, 'false alarm')}**. "
        f"{count(reached, 'claim')} reached {wanted} evaluations."
    )
    yield ""
    yield (
        "N counts seeds × cases, each once, over all devices. *Bound*: the rate of false alarms is "
        "below it with 95 % confidence (3/N without one; Clopper and Pearson with some). *Used*: "
        "the share of its tolerance that a comparison took, 1 at its bound; the closest shave is "
        "the largest. α: how often chance alone falsifies a claim, as its contract states."
    )


def _alarms(found: Sequence[Found]) -> list[str]:
    alarms = [(one, key) for one in found for key in one.falsified]
    if not alarms:
        return []
    rows = [
        [escape(one.test), escape(one.claim), code(f"aprverify campaign --again '{key}'")]
        for one, key in alarms
    ]
    return ["## False alarms", "", *table(("test", "claim", "see it again"), rows)]


def _closest(found: Sequence[Found]) -> list[str]:
    near = [
        (one, compared)
        for one in found
        for compared in one.comparisons.values()
        if compared.worst is not None and not compared.is_fixed and compared.worst.used > NEAR
    ]
    if not near:
        return []
    near.sort(key=lambda pair: -pair[1].worst.used if pair[1].worst else 0.0)
    head = ("test", "comparison", "used", "median", "99 %", "observed, bound", "α", "case and seed")
    rows = [_near_row(one, compared) for one, compared in near]
    return [f"## Used more than {NEAR}", "", *table(head, rows, "llrrrlrl")]


def _near_row(found: Found, compared: Compared) -> list[str]:
    worst = compared.worst
    assert worst is not None
    return [
        escape(found.test),
        escape(f"{found.claim}: {compared.text}"),
        number(worst.used),
        number(compared.quantile(0.5)),
        number(compared.quantile(0.99)),
        escape(f"{number(worst.observed)} {worst.op} {number(worst.bound)}"),
        "–" if found.alpha is None else f"{found.alpha:g}",
        escape(f"{worst.case}, seed {worst.seed}"),
    ]


def _short(found: Sequence[Found], wanted: int) -> list[str]:
    short = [one for one in found if one.total < wanted]
    if not short:
        return []
    title = f"## Fewer than {wanted} evaluations: not done"
    return [title, "", *_claims(short)]


def _done(found: Sequence[Found], wanted: int) -> list[str]:
    done = [one for one in found if one.total >= wanted]
    if not done:
        return []
    return [f"## {wanted} evaluations and more", "", *_claims(done)]


def _claims(found: Sequence[Found]) -> list[str]:
    devices = sorted({device for one in found for device in one.verdicts})
    head = ("test", "claim", *(f"N {d}" for d in devices), "false alarms", "bound", "α")
    head += ("used: median", "99 %", "closest", "observed, bound", "seed")
    align = "ll" + "r" * (len(devices) + 6) + "ll"
    return table(head, (_claim(one, devices) for one in found), align)


def _claim(found: Found, devices: Sequence[str]) -> list[str]:
    counts = [str(found.verdicts.get(device, 0)) for device in devices]
    bound = f"{found.upper_bound:.2g}" if found.total else "–"
    alpha = "–" if found.alpha is None else f"{found.alpha:g}"
    start = [escape(found.test), escape(found.claim), *counts, str(len(found.falsified))]
    compared = found.shave
    if compared is None or compared.worst is None:
        return [*start, bound, alpha, "–", "–", "exact", "", ""]
    worst = compared.worst
    spread = [number(compared.quantile(share)) for share in (0.5, 0.99)]
    sides = escape(f"{number(worst.observed)} {worst.op} {number(worst.bound)}")
    closest = "fixed" if compared.is_fixed else number(worst.used)
    return [*start, bound, alpha, *spread, closest, sides, str(worst.seed)]


def _unvaried(found: Sequence[Found]) -> list[str]:
    same = sorted({one.test for one in found if one.is_unvaried})
    if not same:
        return []
    return [
        "## Seeds that nothing asks for",
        "",
        "The case has a seed and the falsifier never read it: evaluating it again shows nothing "
        "new, and none of this counts above.",
        "",
        *(f"- {escape(test)}" for test in same),
    ]


def _not_run(campaigns: Sequence[Campaign]) -> list[str]:
    lines = [f"- {code(target)}: {escape(reason)}" for target, reason in given_up(campaigns)]
    partly = [
        f"- {code(lot['test'])} {escape(str(one['outcome']))}: {escape(lot['case'])}, "
        f"seed {one['seed']}: {escape(one['detail'])}"
        for campaign in campaigns
        for lot in campaign.lots
        for one in lot["without_verdict"]
        if one["outcome"] != "not_run" and lot["verdicts"]
    ]
    if not lines and not partly:
        return []
    return ["## Without a verdict", "", *lines, *partly]


def _older(campaigns: Sequence[Campaign]) -> list[str]:
    latest = latest_source_ids(campaigns)
    left_out = [
        f"- {escape(name)} in {escape(campaign.name)}"
        for campaign in campaigns
        for name, test in campaign.tests.items()
        if test["source_id"] != latest[name]
    ]
    if not left_out:
        return []
    return ["## About earlier versions of the files: left out", "", *left_out]


def _provenance(campaigns: Sequence[Campaign]) -> list[str]:
    lines = ["## Where it comes from", ""]
    head = ("campaign", "device", "began", "commit", "machine", "processes", "ended")
    rows = [
        [
            escape(campaign.name),
            campaign.device,
            session["started"],
            _commit(session["source"]),
            escape(_machine(session["environment"])),
            str(session["workers"]),
            escape(_ends(campaign)),
        ]
        for campaign in campaigns
        for session in campaign.sessions
    ]
    lines += table(head, rows)
    lines += ["", f"Seed {escape(campaigns[0].sessions[0]['seeds'])}."]
    ids = {(t["test"], t["source_id"]) for c in campaigns for t in c.tests.values()}
    hashes = ([escape(test), code(source_id)] for test, source_id in sorted(ids))
    return [*lines, "", *details("Source ids", table(("test", "source id"), hashes))]


def _commit(source: dict[str, object]) -> str:
    if not source["commit"]:
        return "–"
    return code(str(source["commit"])[:12]) + (" +" if source["dirty"] else "")


def _machine(environment: dict[str, object]) -> str:
    packages = environment.get("packages")
    torch = packages.get("torch", "none") if isinstance(packages, dict) else "none"
    gpus = environment.get("gpus")
    names = [str(gpu["name"]) for gpu in gpus] if isinstance(gpus, list) else []
    where = ", ".join(names) or f"{environment.get('cpu')}, {environment.get('cores')} cores"
    return f"{where}, Python {environment.get('python')}, torch {torch}"


def _ends(campaign: Campaign) -> str:
    return ", ".join(end["why"] for end in campaign.ends) or "cut off"
