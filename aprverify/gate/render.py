"""A judgement for a terminal or a job log, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from aprverify.evidence import verdict
from aprverify.evidence.markdown import count
from aprverify.evidence.records import Run
from aprverify.evidence.status import Status
from aprverify.evidence.terminal import one_line
from aprverify.gate.judge import Decision, Judgement
from aprverify.gate.policy import Policy, Waiver
from aprverify.gate.retired import Retraction
from aprverify.trust.verify import Signature, is_signature_beside

SCHEMA = "aprverify-gate/1"
_MOST_REASONS = 5
MEANINGS = {
    verdict.OK: "met",
    verdict.FALSIFIED: "falsified",
    verdict.VACUOUS: "vacuous",
    verdict.BROKEN: "broken or inconclusive",
    verdict.REQUIRED_NOT_RUN: "not run",
    verdict.STALE: "stale",
    verdict.CONFLICT: "conflict",
}


@dataclass(frozen=True)
class Setting:
    """What a judgement rests on.

    `signers`: the checked signature of each run, by its SHA-256; empty where none was asked for.
    `trusted`: the file of the keys that they were checked against.
    """

    runs: Sequence[Run]
    policy: Policy
    subject: str
    base: Path
    today: date
    signers: Mapping[str, Signature]
    trusted: Path
    warnings: Sequence[str]


def render_text(judgement: Judgement, setting: Setting) -> str:
    """What is not shown, then gates that are not met with why and what to do, the verdict last."""
    required = judgement.required
    lines = [f"Not shown: {_not_shown(judgement, setting)}.", *_signed(setting), ""]
    for retraction in judgement.retractions:
        lines += _dropped(retraction)
    for decision in required:
        if not decision.met:
            lines += _open(decision)
    lines += [f"met      {_name(decision)}" for decision in required if decision.met]
    others = [d for d in judgement.decisions if not d.required and not d.met]
    if others:
        told = ", ".join(f"{d.status.gate} {d.status.status.name}" for d in others)
        lines += ["", f"Not required, and not met: {told}."]
    lines += [
        f"warning: {one_line(warning)}" for warning in (*setting.warnings, *judgement.warnings)
    ]
    return "\n".join([*lines, "", _verdict(judgement)]) + "\n"


def render_json(judgement: Judgement, setting: Setting) -> dict[str, Any]:
    """The same, with everything that the text shortens."""
    policy = setting.policy
    return {
        "schema": SCHEMA,
        "exit_code": judgement.exit_code,
        "meaning": MEANINGS[judgement.exit_code],
        "today": setting.today.isoformat(),
        "subject": setting.subject,
        "policy": {"path": str(policy.path) if policy.path else None, "sha256": policy.sha256},
        "runs": [
            {
                "run_id": run.header.run_id,
                "sha256": run.sha256,
                **_signature(run, setting),
            }
            for run in setting.runs
        ],
        "gates": [_gate(decision) for decision in judgement.decisions],
        "dropped_gates": [_dropped_gate(retraction) for retraction in judgement.retractions],
        "warnings": [*setting.warnings, *judgement.warnings],
    }


def _signature(run: Run, setting: Setting) -> dict[str, Any]:
    signature = setting.signers.get(run.sha256)
    if signature is None:
        beside = "not checked" if is_signature_beside(run) else "none"
        return {"signature": beside, "signed_by": None, "key_id": None}
    return {
        "signature": "verified",
        "signed_by": signature.identity,
        "key_id": signature.key_id,
    }


def _gate(decision: Decision) -> dict[str, Any]:
    status = decision.status
    return {
        "contract": status.contract,
        "gate": status.gate,
        "ship_blocking": status.ship_blocking,
        "about": status.about,
        "required": decision.required,
        "status": status.status.name,
        "met": decision.met,
        "blocks": decision.blocks,
        "exit_code": decision.code,
        "meaning": MEANINGS[decision.code],
        "teeth_caught": status.teeth_caught,
        "teeth_declared": status.teeth_declared,
        "why": list(decision.why),
        "what_to_do": list(decision.todo),
        "waiver": _waiver(decision.waiver, decision.waived),
        "conflicts": [
            {"key": c.key, "outcomes": list(c.outcomes), "runs": list(c.runs)}
            for c in decision.conflicts
        ],
    }


def _waiver(waiver: Waiver | None, in_force: bool) -> dict[str, Any] | None:
    if waiver is None:
        return None
    return {
        "reason": waiver.reason,
        "owner": waiver.owner,
        "expires": waiver.expires.isoformat(),
        "status": waiver.status.name,
        "in_force": in_force,
    }


def _dropped_gate(retraction: Retraction) -> dict[str, Any]:
    retired = retraction.retired
    return {
        "gate": retraction.gate,
        "contract": retraction.contract,
        "what": retraction.what,
        "runs": list(retraction.runs),
        "blocks": retraction.blocks,
        "retired": None
        if retired is None
        else {
            "reason": retired.reason,
            "owner": retired.owner,
            "expires": retired.expires.isoformat(),
            "in_force": retraction.in_force,
        },
    }


def _dropped(retraction: Retraction) -> Iterator[str]:
    retired = retraction.retired
    mark = "DROPPED " if retraction.blocks else "RETIRED "
    yield f"{mark} {one_line(retraction.gate)}"
    runs = ", ".join(retraction.runs)
    yield f"    why     {one_line(f'it blocks shipping in run {runs}, and {retraction.what}')}"
    if retired is not None:
        until = "through" if retraction.in_force else "expired on"
        told = f"{retired.owner}, {until} {retired.expires}: {retired.reason}"
        yield f"    retired {one_line(told)}"
    if retraction.blocks:
        yield (
            "    do      declare it again; or name it under `retired` in the policy, with reason, "
            "owner and expiry"
        )


def _open(decision: Decision) -> Iterator[str]:
    waiver = decision.waiver
    mark = "WAIVED  " if decision.waived else "NOT MET "
    yield f"{mark} {_name(decision)}"
    if decision.waived and waiver is not None:
        told = one_line(waiver.reason)
        yield f"    waiver  {waiver.owner}, through {waiver.expires}: {told}"
    yield from _several("why   ", decision.why)
    yield from _several("do    ", decision.todo)


def _several(label: str, texts: Sequence[str]) -> Iterator[str]:
    for text in texts[:_MOST_REASONS]:
        yield f"    {label}  {one_line(text)}"
    if len(texts) > _MOST_REASONS:
        yield f"    {label}  and {len(texts) - _MOST_REASONS} more (--json has them)"


def _name(decision: Decision) -> str:
    status = decision.status
    teeth = f"teeth {status.teeth_caught}/{status.teeth_declared}"
    return f"{status.status.name:<23} {status.gate}  ({status.contract}, {teeth})"


def _not_shown(judgement: Judgement, setting: Setting) -> str:
    others = len(judgement.decisions) - len(judgement.required)
    parts = [f"{count(others, 'gate')} not required"] if others else []
    partial = [d for d in judgement.required if d.met and d.status.status is not Status.DISCHARGED]
    if partial:
        parts.append(f"{count(len(partial), 'required gate')} at full scale")
    unknown = [run for run in setting.runs if run.sha256 not in setting.signers]
    if unknown:
        parts.append(f"who made {count(len(unknown), 'run')} ({_unchecked(unknown)})")
    parts.append(f"subjects other than {setting.subject}")
    return "; ".join(parts)


def _unchecked(runs: Sequence[Run]) -> str:
    beside = sum(map(is_signature_beside, runs))
    if not beside:
        return "unsigned"
    told = f"signature present at {beside} but not checked: --require-signed does"
    return f"{len(runs) - beside} unsigned, {told}" if beside < len(runs) else told


def _signed(setting: Setting) -> Iterator[str]:
    for run in setting.runs:
        signature = setting.signers.get(run.sha256)
        if signature is not None:
            yield (
                f"Run {run.header.run_id} is signed by {signature.identity}: verified against its "
                f"key {signature.key_id} in {setting.trusted}."
            )


def _verdict(judgement: Judgement) -> str:
    required = judgement.required
    blocking = [decision for decision in required if decision.blocks]
    waived = [decision for decision in required if decision.waived]
    dropped = [retraction for retraction in judgement.retractions if retraction.blocks]
    gates = count(len(required), "required gate")
    excused = f", {len(waived)} of them by a waiver only" if waived else ""
    if not blocking and not dropped:
        return f"GATE MET: {gates}{excused}."
    code = judgement.exit_code
    told = [f"{len(blocking)} of {gates}"]
    told += [f"{count(len(dropped), 'gate')} that blocked shipping dropped"] if dropped else []
    return f"GATE NOT MET: {'; '.join(told)}; worst: {MEANINGS[code]} (exit status {code})."
