"""What a gate asks for beyond its contract: which gates, where they ran, how old, what is waived.

A policy is a YAML file that is linted like a contract: every problem names file, line and fix. Its
form stands in `aprverify/schemas/policy.schema.json`. Without one, every ship-blocking gate is
required, on whatever machine, at whatever age.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from aprverify.contract import schema
from aprverify.contract.document import Document, DocumentError, read_document
from aprverify.contract.lint import Problem
from aprverify.evidence.records import ContractRecord, GateRecord
from aprverify.evidence.status import Status
from aprverify.gate.environments import RANGES, Condition

_GROUPS = ("all", "ship_blocking")
_LONGEST = timedelta(days=366)
"""Beyond it, a waiver would outlive whoever answers for it."""


@dataclass(frozen=True)
class Rule:
    """What is asked of one gate.

    Attributes:
        lanes: those on which each of its tests that has a case there must have held.
        environments: what the environment of a counted row must be like, by the case's device.
        allows_partial: whether PARTIAL_ALGORITHM_LEVEL is enough; None: as the contract says.
        max_age_days: the age from which a row is as stale as one about other files; None: any.
    """

    lanes: tuple[str, ...] = ()
    environments: Mapping[str, Condition] = field(default_factory=dict)
    allows_partial: bool | None = None
    max_age_days: int | None = None


@dataclass(frozen=True)
class Waiver:
    """Somebody answers for a gate that is not met, through the day on which it expires.

    It excuses `status` and whatever is better: FALSIFIED only where it says so.
    """

    gate: str
    reason: str
    owner: str
    expires: date
    status: Status
    line: int


@dataclass(frozen=True)
class Retired:
    """Somebody answers for it that a gate no longer blocks shipping, through the day it expires."""

    gate: str
    reason: str
    owner: str
    expires: date
    line: int


@dataclass(frozen=True)
class Policy:
    """A policy that has no problem. `path` and `sha256` are None for the one that is built in."""

    required: tuple[str, ...] = ("ship_blocking",)
    subject: str | None = None
    defaults: Rule = field(default_factory=Rule)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    waivers: Mapping[str, Waiver] = field(default_factory=dict)
    retired: Mapping[str, Retired] = field(default_factory=dict)
    path: Path | None = None
    sha256: str | None = None

    def requires(self, gate: GateRecord) -> bool:
        """Whether the gate is one that must be met."""
        named = gate.id in self.required or "all" in self.required
        return named or (gate.ship_blocking and "ship_blocking" in self.required)

    @property
    def follows_contracts(self) -> bool:
        """Whether the contracts decide what is required, and not a list of names alone."""
        return not {"all", "ship_blocking"}.isdisjoint(self.required)

    def rule(self, gate: str) -> Rule:
        """What is asked of a gate: its own rule, and the defaults where that says nothing."""
        return self.rules.get(gate, self.defaults)


def read_policy(
    path: Path, contracts: Sequence[ContractRecord], today: date
) -> tuple[Policy, list[Problem]]:
    """Read and lint one policy file. With any problem the policy is not to be used.

    `today` is the day of the judgement, from which the span of a waiver counts.
    """
    try:
        document = read_document(path)
    except DocumentError as error:
        return Policy(), [Problem(path, error.line, str(error), error.fix)]
    if not isinstance(document.data, dict):
        what = "a policy is a mapping, this file holds something else"
        return Policy(), [Problem(path, 1, what, "begin with `policy: aprverify-policy/1`")]
    errors = schema.validator("policy").iter_errors(document.data)
    problems = [_schema_problem(document, error) for error in errors]
    problems = problems or [*_problems(document, contracts, today)]
    return (Policy(), sorted(problems)) if problems else (_policy(document), [])


def _schema_problem(document: Document, error: Any) -> Problem:
    return Problem(document.path, *schema.fault(document, error, "policy"))


def _problems(
    document: Document, contracts: Sequence[ContractRecord], today: date
) -> Iterator[Problem]:
    """What a well-formed policy says that cannot be meant."""

    def problem(what: str, fix: str, *at: str | int) -> Problem:
        return Problem(document.path, document.line(*at), what, fix)

    data = document.data
    gates = {gate.id: gate for contract in contracts for gate in contract.gates}
    devices = _devices(contracts)
    for i, name in enumerate(data.get("required", [])):
        if name not in gates and name not in _GROUPS:
            yield problem(*_unknown(name, [*gates, *_GROUPS]), "required", i)
    seen: set[str] = set()
    for i, rule in enumerate(data.get("gates", [])):
        name = rule["gate"]
        if name not in gates:
            yield problem(*_unknown(name, gates), "gates", i, "gate")
        elif name in seen:
            yield problem(f"a second rule for {name}", "merge the two", "gates", i, "gate")
        for device in set(rule.get("lanes", ())) - devices.get(name, set(rule.get("lanes", ()))):
            what = f"{name} has no case on {device}: it could never be met"
            yield problem(what, "drop the lane", "gates", i, "lanes")
        seen.add(name)
    for at, body in _environments(data):
        for name in RANGES:
            if name in body and not _is_range(body[name]):
                what = f"{name}: {body[name]!r} is no range of versions"
                yield problem(what, "write it as in `>=2.11,<3`", *at, name)
    for part, noun in (("waivers", "waiver"), ("retired", "entry")):
        named: set[str] = set()
        for i, answered in enumerate(data.get(part, [])):
            if answered["gate"] in named:
                what = f"a second {noun} for {answered['gate']}"
                yield problem(what, "keep one", part, i, "gate")
            named.add(answered["gate"])
            if fault := _expiry(answered["expires"], today):
                yield problem(*fault, part, i, "expires")


def _unknown(name: str, known: Sequence[str] | Mapping[str, Any]) -> tuple[str, str]:
    guess = get_close_matches(name, known, 1)
    fix = f"did you mean {guess[0]!r}?" if guess else "`aprverify list` shows what is declared"
    return f"no contract here declares the gate {name!r}", fix


def _devices(contracts: Sequence[ContractRecord]) -> dict[str, set[str]]:
    """The devices of the cases of each gate's tests."""
    tests = {test.id: test for contract in contracts for test in contract.tests}
    return {
        gate.id: {c.lane for name in gate.tests for c in tests[name].cases.values()}
        for contract in contracts
        for gate in contract.gates
    }


def _environments(
    data: Mapping[str, Any],
) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    places: list[tuple[tuple[str | int, ...], Mapping[str, Any]]] = [
        (("defaults",), data.get("defaults", {})),
        *((("gates", i), rule) for i, rule in enumerate(data.get("gates", []))),
    ]
    for at, rule in places:
        for device, body in rule.get("environments", {}).items():
            yield (*at, "environments", device), body


def _is_range(text: str) -> bool:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return bool(text.strip())


def _expiry(text: str, today: date) -> tuple[str, str] | None:
    """What is wrong with a last day, and its remedy."""
    try:
        expires = date.fromisoformat(text)
    except ValueError:
        return f"expires: there is no day {text}", "write it as in 2027-01-31"
    if expires - today > _LONGEST:
        what = f"expires: {text} is more than {_LONGEST.days} days ahead of {today}"
        return what, "name an earlier day, and look at it again then"
    return None


def _policy(document: Document) -> Policy:
    data = document.data
    defaults = _rule(Rule(), data.get("defaults", {}))
    return Policy(
        required=tuple(data.get("required", Policy.required)),
        subject=data.get("subject"),
        defaults=defaults,
        rules={rule["gate"]: _rule(defaults, rule) for rule in data.get("gates", [])},
        waivers={
            waiver["gate"]: Waiver(
                gate=waiver["gate"],
                reason=waiver["reason"].strip(),
                owner=waiver["owner"].strip(),
                expires=date.fromisoformat(waiver["expires"]),
                status=Status[waiver["status"]],
                line=document.line("waivers", i),
            )
            for i, waiver in enumerate(data.get("waivers", []))
        },
        retired={
            retired["gate"]: Retired(
                gate=retired["gate"],
                reason=retired["reason"].strip(),
                owner=retired["owner"].strip(),
                expires=date.fromisoformat(retired["expires"]),
                line=document.line("retired", i),
            )
            for i, retired in enumerate(data.get("retired", []))
        },
        path=document.path,
        sha256=hashlib.sha256(document.path.read_bytes()).hexdigest(),
    )


def _rule(base: Rule, body: Mapping[str, Any]) -> Rule:
    own = {name: body[name] for name in ("allows_partial", "max_age_days") if name in body}
    conditions = {d: Condition.of(fields) for d, fields in body.get("environments", {}).items()}
    return replace(
        base,
        lanes=tuple(body.get("lanes", base.lanes)),
        environments={**base.environments, **conditions},
        **own,
    )
