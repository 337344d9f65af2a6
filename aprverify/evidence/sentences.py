"""What a run shows and does not show, in sentences: the same in every view."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from aprverify.evidence import verdict
from aprverify.evidence.accounts import missing_entries
from aprverify.evidence.markdown import count
from aprverify.evidence.records import Reason, Row, Run

_LABELS = {
    "device": "device absent",
    "asset": "asset not fetched",
    "package": "package not installed",
    "subject": "not supported by the subject",
    "interrupted": "interrupted",
    "setup": "set-up failed",
    "error": "error",
    "crash": "crash",
    "missing": "left no row",
    "plant": "defect not in force",
    "inconclusive": "inconclusive",
}


@dataclass(frozen=True)
class Gap:
    """Entries that have no verdict for one and the same reason."""

    reason: Reason
    rows: tuple[Row, ...]


def gaps(rows: Iterable[Row]) -> list[Gap]:
    """The rows that did not run, by reason, the largest group first."""
    groups: dict[Reason, list[Row]] = defaultdict(list)
    for row in rows:
        if row.outcome == "not_run" and row.reason is not None:
            groups[row.reason].append(row)
    found = [Gap(reason, tuple(members)) for reason, members in groups.items()]
    return sorted(found, key=lambda gap: (-len(gap.rows), gap.reason.kind, gap.reason.detail))


def not_shown(run: Run) -> str:
    """What the run does not show. Never empty."""
    claims = [row for row in run.rows if row.kind == "claim"]
    teeth = [row for row in run.rows if row.kind == "teeth"]
    parts = [
        *_selection(run),
        *_without_verdict(claims, "claim entry", "claim entries"),
        *_reduced(claims),
        *_teeth(teeth),
        f"other subjects than {run.header.subject}, other machines than this run's, and faults "
        "that no claim is about",
        "who made this run (whether it is signed, aprverify check says)",
    ]
    return "; ".join(parts) + "."


def _selection(run: Run) -> list[str]:
    parts = []
    if run.footer.interrupted:
        parts.append("what the interruption cut off")
    selection = run.header.selection
    if dear := selection.too_dear:
        entries = count(dear.entries, "entry left out for its", "entries left out for their")
        why = f"by committed runs over {dear.seconds:g} s, or planted under a claim that is"
        parts.append(f"{entries} cost ({why})")
    if not selection.complete and not _explained_by_cost(run):
        parts.append("the entries that were not asked for (a part of the suite was selected)")
    if selection.lane != "all":
        parts.append(f"what is run by other lanes than {selection.lane}")
    return parts


def _explained_by_cost(run: Run) -> bool:
    """Whether all that is known to be missing may have been left out for its cost."""
    selection = run.header.selection
    if selection.too_dear is None or selection.keyword or selection.markers:
        return False
    header = replace(run.header, selection=replace(selection, complete=True))
    missing = missing_entries(header, run.contracts, {row.key: row for row in run.rows})
    return len(list(missing)) <= selection.too_dear.entries


def _without_verdict(rows: Sequence[Row], noun: str, nouns: str) -> list[str]:
    parts = []
    total = count(len(rows), noun, nouns)
    missing = [row for row in rows if row.outcome == "not_run" and not row.inapplicable]
    broken = [row for row in rows if row.outcome in ("broken", "inconclusive")]
    if missing:
        parts.append(f"{len(missing)} of {total} did not run ({_by_kind(missing)})")
    if broken:
        parts.append(f"{len(broken)} of {total} broke or stayed inconclusive ({_by_kind(broken)})")
    return parts


def _by_kind(rows: Sequence[Row]) -> str:
    details: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.reason is not None:
            details[row.reason.kind][row.reason.detail] += 1
    told = sorted(details.items(), key=lambda item: (-item[1].total(), item[0]))
    return "; ".join(f"{_label(kind, seen)}: {seen.total()}" for kind, seen in told)


def _label(kind: str, details: Counter[str]) -> str:
    (only, *others) = details
    return only if not others and 0 < len(only) <= 60 else _LABELS[kind]


def _reduced(claims: Sequence[Row]) -> list[str]:
    held = [row for row in claims if row.outcome == "held"]
    reduced = sum(row.scale == "reduced" for row in held)
    noun = count(len(held), "claim entry", "claim entries")
    return [f"full scale for {reduced} of {noun} that held"] if reduced else []


def _teeth(teeth: Sequence[Row]) -> list[str]:
    if not teeth:
        return ["that the falsifiers can fail (no defect was planted)"]
    parts = _without_verdict(teeth, "planted defect", "planted defects")
    if inapplicable := [row for row in teeth if row.inapplicable]:
        total = count(len(teeth), "planted defect")
        why = _by_kind(inapplicable)
        parts.append(f"{len(inapplicable)} of {total} do not apply to the subject ({why})")
    return parts


def verdict_sentence(run: Run) -> str:
    """The verdict, with the counts it rests on."""
    claims = Counter(row.outcome for row in run.rows if row.kind == "claim")
    teeth = Counter(row.outcome for row in run.rows if row.kind == "teeth")
    held = f"{claims['held']} of {count(claims.total(), 'claim entry', 'claim entries')} held"
    caught = f"{teeth['caught']} of {count(teeth.total(), 'planted defect')} caught"
    return f"{_headline(run, claims, teeth)} {held}, {caught if teeth else 'no defect planted'}."


def _headline(run: Run, claims: Counter[str], teeth: Counter[str]) -> str:
    match verdict.exit_code(run, run.header.require):
        case verdict.INTERRUPTED:
            return "INTERRUPTED: no verdict."
        case verdict.FALSIFIED:
            return f"FALSIFIED: {count(claims['falsified'], 'claim entry', 'claim entries')}."
        case verdict.VACUOUS:
            return f"VACUOUS: {count(teeth['survived'], 'planted defect')} went unnoticed."
        case verdict.BROKEN:
            broken = sum(row.outcome in ("broken", "inconclusive") for row in run.rows)
            return f"BROKEN: {count(broken, 'entry', 'entries')} reached no verdict."
        case verdict.REQUIRED_NOT_RUN:
            gaps = verdict.required_not_run(run, run.header.require)
            missing = count(len(gaps), "entry", "entries")
            return f"INCOMPLETE: {missing} did not run, and {_devices(run)} was required."
        case verdict.NOTHING_RAN:
            return "NOTHING RAN."
    return "Nothing was falsified."


def _devices(run: Run) -> str:
    return " and ".join(run.header.require)
