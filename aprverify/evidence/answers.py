"""What a reviewer with two minutes asks of a run, answered in a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from aprverify.evidence import verdict
from aprverify.evidence.changes import changes_between
from aprverify.evidence.changes_markdown import sentence
from aprverify.evidence.closest import Near, nearest_first
from aprverify.evidence.markdown import clip, code, count, escape, observed_and_bound
from aprverify.evidence.provenance import commit, where
from aprverify.evidence.records import Row, Run
from aprverify.evidence.status import GateStatus, Status
from aprverify.evidence.teeth import pairs_of

_NAMED = 3


def answers(run: Run, statuses: Sequence[GateStatus], earlier: Run | None) -> Iterator[str]:
    """The lines of the list; `statuses`: of every gate that the run declares."""
    yield f"**Is the gate met?** {gate_met(statuses, 'this run', _verdict_of(run))}"
    yield f"**What failed?** {_failed(run.rows)}"
    yield f"**What came closest to failing?** {_closest(run.rows)}"
    yield f"**What changed?** {_changed(run, earlier)}"
    yield f"**Can the falsifiers fail?** {_teeth(run)}"
    yield f"**Where does it come from?** {_provenance(run)}"


def gate_met(statuses: Sequence[GateStatus], source: str, spoilt: str = "") -> str:
    """Whether everything that blocks shipping may ship; `spoilt`: why not, whatever they say.

    `source` recorded the contracts that are meant: there may be more of them by now.
    """
    blocking = [status for status in statuses if status.ship_blocking]
    waiting = [status for status in blocking if not status.ships]
    seen = Counter(status.status for status in waiting)
    told = ", ".join(f"{seen[status]} {status.name}" for status in Status if seen[status])
    recorded = f"of the contracts recorded in {source}"
    amount = f"{len(waiting)} of {count(len(blocking), 'ship-blocking gate')}"
    reasons = [spoilt] if spoilt else []
    reasons += [f"{amount} {recorded} may not ship ({told})"] if waiting else []
    if reasons:
        return f"**No:** {'; '.join(reasons)}."
    if not blocking:
        return f"No gate {recorded} blocks shipping."
    partial = sum(status.status is Status.PARTIAL_ALGORITHM_LEVEL for status in blocking)
    small = f", {partial} of them at reduced scale as their contract allows" if partial else ""
    one = len(blocking) == 1
    all_of = "the ship-blocking gate" if one else f"all {len(blocking)} ship-blocking gates"
    return f"**Yes:** {all_of} {recorded} {'is' if one else 'are'} discharged{small}."


def _verdict_of(run: Run) -> str:
    spoilt = {
        verdict.INTERRUPTED: "the run was interrupted",
        verdict.FALSIFIED: "a claim was falsified",
        verdict.VACUOUS: "a planted defect survived",
        verdict.BROKEN: "something broke or was inconclusive",
        verdict.REQUIRED_NOT_RUN: "something that had to run did not",
        verdict.NOTHING_RAN: "nothing ran",
    }
    return spoilt.get(verdict.exit_code(run, run.header.require), "")


def _failed(rows: Sequence[Row]) -> str:
    failed = [row for row in rows if row.outcome not in ("held", "caught", "not_run")]
    if not failed:
        return "Nothing that ran."
    named = some([f"{code(row.key)} {row.outcome}" for row in failed])
    return f"{count(len(failed), 'entry', 'entries')}: {named}."


def some(texts: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f", and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more


def _closest(rows: Sequence[Row]) -> str:
    nearest = nearest_first(rows)
    if not nearest:
        return "No claim with a tolerance held."
    return f"{near_text(nearest[0])}. Margins are in units of the tolerance: 0 is at the bound."


def near_text(near: Near) -> str:
    """The claim, its two sides, and its margin."""
    observed, bound = observed_and_bound(near.comparison)
    sides = code(clip(f"{observed} {bound}", 60))
    return (
        f"{escape(near.row.test)}, claim {escape(near.comparison.claim)}: {sides}, "
        f"margin {tolerances(near.margin)}"
    )


def tolerances(margin: float | None) -> str:
    """A margin in tolerances, signed; a dash where there is none."""
    return "–" if margin is None else f"{margin:+.2g}"


def _changed(run: Run, earlier: Run | None) -> str:
    if earlier is None:
        return "No earlier run was given (`aprverify report RUN --since EARLIER`)."
    told = sentence(changes_between(earlier, run))
    return f"{told} Compared with {code(earlier.header.run_id)}."


def _teeth(run: Run) -> str:
    pairs = pairs_of(run)
    if not any(row.kind == "teeth" for row in run.rows):
        return "Not shown: no defect was planted."
    seen = Counter(pair.overall for pair in pairs)
    parts = [f"{seen['caught']} of {count(len(pairs), 'declared fault')} planted and caught"]
    words = {"survived": "**survived**", "broken": "broke", "inapplicable": "do not apply"}
    parts += [f"{seen[name]} {word}" for name, word in words.items() if seen[name]]
    if idle := seen["not_run"] + seen["absent"]:
        parts.append(f"{idle} not planted")
    return ", ".join(parts) + "."


def _provenance(run: Run) -> str:
    # Workers of one machine may differ in a variable only: the provenance below says in which.
    seen = dict.fromkeys(escape(where(environment)) for environment in run.environments)
    machines = "; ".join(seen)
    return (
        f"Commit {commit(run)}; {machines}; {run.header.started[:10]}; run.jsonl has SHA-256 "
        f"{code(run.sha256[:16])}…, and holds the contracts, the versions and the hash of every "
        "source it rests on, but no signature: `aprverify check` says whether one is beside it."
    )
