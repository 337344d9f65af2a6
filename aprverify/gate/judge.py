"""One gate after another: which rows count, what they show, whether that is enough, what to do.

A row counts where its environment is as the policy asks; a row that did not run counts only where
it is about the present files, since what did not run says nothing of other ones. Where verdicts
about the same files differ, the worse one counts, whichever is newer: running until it holds is no
way to meet a gate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from aprverify.evidence import verdict
from aprverify.evidence.merge import Origin, candidates_by_key, disagreements, speaker, worse
from aprverify.evidence.records import (
    VERDICTS,
    ContractRecord,
    Environment,
    GateRecord,
    Run,
    TestRecord,
    instant,
)
from aprverify.evidence.status import GateStatus, Status, gate_statuses
from aprverify.gate.policy import Policy, Rule, Waiver
from aprverify.gate.retired import Retraction, retractions

WORST_FIRST = (
    verdict.FALSIFIED,
    verdict.VACUOUS,
    verdict.CONFLICT,
    verdict.BROKEN,
    verdict.STALE,
    verdict.REQUIRED_NOT_RUN,
    verdict.OK,
)
_CODES = {
    Status.FALSIFIED: verdict.FALSIFIED,
    Status.VACUOUS: verdict.VACUOUS,
    Status.BROKEN: verdict.BROKEN,
    Status.STALE: verdict.STALE,
    Status.PENDING: verdict.REQUIRED_NOT_RUN,
    Status.PARTIAL_ALGORITHM_LEVEL: verdict.REQUIRED_NOT_RUN,
}
_MOST_REMEDIES = 3


@dataclass(frozen=True)
class Conflict:
    """An entry whose verdicts about the present files differ, and the runs that said so."""

    key: str
    outcomes: tuple[str, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """What the gate's counted rows show, and whether that is enough.

    Attributes:
        status: as in the reports; a waiver does not change it.
        required: whether the policy asks for this gate.
        code: the exit status that the gate by itself would give, its waiver left aside.
        why: what makes it so; empty for a gate that is met with all its teeth.
        todo: what would mend it; empty for a gate that is met.
        waiver: the policy's waiver for it, in force or not.
        waived: the waiver is in force, and excuses this status.
        conflicts: entries of it whose verdicts differ.
    """

    status: GateStatus
    required: bool
    code: int
    why: tuple[str, ...]
    todo: tuple[str, ...]
    waiver: Waiver | None = None
    waived: bool = False
    conflicts: tuple[Conflict, ...] = ()

    @property
    def met(self) -> bool:
        """Whether the gate is met without a waiver."""
        return self.code == verdict.OK

    @property
    def blocks(self) -> bool:
        """Whether the policy's gate fails because of it."""
        return self.required and not self.met and not self.waived


@dataclass(frozen=True)
class Present:
    """What holds here.

    Attributes:
        contracts: those of the checkout.
        source_ids: of each planned entry as the files stand; empty where they are unknown.
        keys: of the planned entries.
        plantable: those of planted defects that apply to the subject, whatever its rows say.
        unknown: why the source ids are unknown, else None.
        today: the day for ages and waivers.
    """

    contracts: Sequence[ContractRecord]
    source_ids: Mapping[str, str]
    keys: frozenset[str]
    plantable: frozenset[str]
    unknown: str | None
    today: date


@dataclass(frozen=True)
class Judgement:
    """Every gate of the checkout, those that it dropped, and what decides nothing."""

    decisions: tuple[Decision, ...]
    retractions: tuple[Retraction, ...]
    warnings: tuple[str, ...]

    @property
    def required(self) -> list[Decision]:
        """The gates that the policy asks for."""
        return [decision for decision in self.decisions if decision.required]

    @property
    def exit_code(self) -> int:
        """The worst of what blocks."""
        codes = {decision.code for decision in self.decisions if decision.blocks}
        codes |= {verdict.CONFLICT for retraction in self.retractions if retraction.blocks}
        return next(code for code in WORST_FIRST if code in codes or code == verdict.OK)


def judge(runs: Sequence[Run], present: Present, policy: Policy) -> Judgement:
    """Judge every gate of the present contracts from `runs`, which are about one subject."""
    by_test: dict[str, dict[str, list[Origin]]] = defaultdict(dict)
    for key, found in candidates_by_key(runs, present.contracts).items():
        if key in present.keys:
            by_test[found[0].row.test][key] = found
    decisions = []
    warnings = [
        *_foreign(runs, present),
        *_waivers_for_nothing(present, policy),
        *_not_required(present, policy),
        *_lanes_for_nothing(present, policy),
    ]
    dropped = retractions(runs, present.contracts, policy, present.today)
    warnings += _retired_for_nothing(dropped, policy)
    for contract in present.contracts:
        tests = {test.id: test for test in contract.tests}
        for gate in contract.gates:
            judging = _Judging(contract, gate, tests, policy.rule(gate.id), present)
            rows = {k: o for name in gate.tests for k, o in by_test.get(name, {}).items()}
            decision = judging.decide(rows, policy.requires(gate))
            decision, said = _with_waiver(decision, policy.waivers.get(gate.id), present.today)
            decisions.append(decision)
            warnings += [*said, *judging.warnings]
    return Judgement(tuple(decisions), dropped, tuple(dict.fromkeys(warnings)))


@dataclass
class _Judging:
    """The judgement of one gate."""

    contract: ContractRecord
    gate: GateRecord
    tests: Mapping[str, TestRecord]
    rule: Rule
    present: Present
    warnings: list[str] = field(default_factory=list)
    aside: dict[str, int] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)

    def decide(self, candidates: Mapping[str, Sequence[Origin]], required: bool) -> Decision:
        origins: dict[str, Origin] = {}
        for key, found in candidates.items():
            kept = [origin for origin in found if self._counts(origin, required)]
            if kept:
                origins[key] = self._speaker(key, kept)
        causes = {key: self._stale(origin) for key, origin in origins.items()}
        stale = {key: cause for key, cause in causes.items() if cause is not None}
        one = replace(
            self.contract,
            gates=(self.gate,),
            tests=tuple(self.tests[name] for name in self.gate.tests),
        )
        rows = [origin.row for origin in origins.values()]
        (status,) = gate_statuses([one], rows, stale.keys())
        open_lanes = [*self._open_lanes(origins, stale)]
        code = self._code(status, origins, open_lanes)
        why = [] if code == verdict.OK else [*self._why(status, origins, stale), *open_lanes]
        return Decision(
            status=status,
            required=required,
            code=code,
            why=tuple(why),
            todo=tuple(dict.fromkeys(self._todo(code, status, origins, stale))),
            conflicts=tuple(self.conflicts),
        )

    def _counts(self, origin: Origin, required: bool) -> bool:
        row = origin.row
        if row.inapplicable and row.key in self.present.plantable:
            said = f"in run {origin.run.header.run_id}: it says that its defect does not apply"
            self.warnings.append(f"{row.key}: not counted, {said} to a subject to which it does")
            return False
        if row.outcome == "not_run":
            return self.present.source_ids.get(row.key) == row.source_id
        condition = self.rule.environments.get(row.device)
        misfit = condition.misfit(_environment(origin)) if condition else None
        if misfit is None:
            return True
        said = f"in run {origin.run.header.run_id}: {misfit}"
        self.aside[said] = self.aside.get(said, 0) + 1
        if required and row.outcome in ("falsified", "survived"):
            self.warnings.append(f"{row.key}: {row.outcome}, and yet not counted, {said}")
        return False

    def _speaker(self, key: str, kept: Sequence[Origin]) -> Origin:
        if len(kept) == 1:
            return kept[0]
        disagreeing = disagreements(kept).get(self.present.source_ids.get(key, ""))
        if disagreeing is None:
            return speaker(kept, self.present.source_ids)
        outcomes = tuple(sorted({origin.row.outcome for origin in disagreeing}))
        names = tuple(sorted({origin.run.header.run_id for origin in disagreeing}))
        self.conflicts.append(Conflict(key, outcomes, names))
        return worse(disagreeing)

    def _stale(self, origin: Origin) -> str | None:
        """Why the row says nothing of the present files, or of the present; None: it does."""
        row, name = origin.row, origin.run.header.run_id
        if self.present.unknown is not None:
            return f"of unknown source: {self.present.unknown}"
        if self.present.source_ids.get(row.key) != row.source_id:
            return f"the files it depends on are not those of run {name}"
        if self.rule.max_age_days is None:
            return None
        age = (self.present.today - instant(row.started).date()).days
        if age > self.rule.max_age_days:
            return f"{age} days old in run {name}, the policy allows {self.rule.max_age_days}"
        return f"dated {-age} days ahead in run {name}" if age < -1 else None

    def _open_lanes(self, origins: Mapping[str, Origin], stale: Mapping[str, str]) -> Iterator[str]:
        for lane in self.rule.lanes:
            for name in self.gate.tests:
                cases = [c for c, case in self.tests[name].cases.items() if case.lane == lane]
                keys = [f"{name}[{case}]" for case in cases]
                held = [k for k in keys if k in origins and origins[k].row.outcome == "held"]
                if keys and not any(key not in stale for key in held):
                    yield f"{name}: nothing held on {lane}, on which the policy asks for it"

    def _code(
        self, status: GateStatus, origins: Mapping[str, Origin], open_lanes: Sequence[str]
    ) -> int:
        if status.status is Status.DISCHARGED or (
            status.status is Status.PARTIAL_ALGORITHM_LEVEL and self._allows_partial
        ):
            return verdict.REQUIRED_NOT_RUN if open_lanes else verdict.OK
        failed = {"falsified", "survived"}
        bad = {key for key, origin in origins.items() if origin.row.outcome in failed}
        if bad and bad <= {conflict.key for conflict in self.conflicts}:
            return verdict.CONFLICT
        return _CODES[status.status]

    def _why(
        self, status: GateStatus, origins: Mapping[str, Origin], stale: Mapping[str, str]
    ) -> Iterator[str]:
        for conflict in self.conflicts:
            yield (
                f"{conflict.key}: {' and '.join(conflict.outcomes)} about the same files, in "
                f"{_listed('run', conflict.runs)}"
            )
        if status.status is Status.STALE:
            by_cause: dict[str, list[str]] = defaultdict(list)
            for key, cause in stale.items():
                by_cause[cause].append(key)
            for cause, keys in by_cause.items():
                more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
                yield f"{keys[0]}{more}: {cause}"
        elif status.status is not Status.PARTIAL_ALGORITHM_LEVEL:
            yield from status.why
        elif not self._allows_partial:
            yield from (f"{why}, and that is not enough here" for why in status.why)
        if status.status in (Status.FALSIFIED, Status.VACUOUS, Status.BROKEN):
            for key, cause in stale.items():
                if origins[key].row.outcome not in ("held", "caught"):
                    yield f"{key}: nobody ran it since; {cause}"
        for said, amount in self.aside.items():
            yield f"{_rows(amount)} not counted, {said}"

    @property
    def _allows_partial(self) -> bool:
        partial = self.rule.allows_partial
        return self.gate.allows_partial if partial is None else partial

    def _todo(
        self,
        code: int,
        status: GateStatus,
        origins: Mapping[str, Origin],
        stale: Mapping[str, str],
    ) -> Iterator[str]:
        rows = [origin.row for origin in origins.values()]
        if code == verdict.FALSIFIED:
            for test in dict.fromkeys(row.test for row in rows if row.outcome == "falsified"):
                yield f"`pytest -k {test}`; {' '.join(self.tests[test].if_fails.split())}"
        elif code == verdict.VACUOUS:
            for row in rows:
                if row.outcome == "survived":
                    yield (
                        f"`pytest -k {row.test} --teeth declared`; sharpen the claim or its "
                        f"measure until {row.defect} fails it"
                    )
        elif code == verdict.CONFLICT:
            for conflict in self.conflicts:
                test = origins[conflict.key].row.test
                yield (
                    f"`pytest -k {test}` on both machines: flaky, or different from machine to "
                    "machine; withdraw the run that was at fault, or mend what it found"
                )
        elif code == verdict.BROKEN:
            for row in rows:
                if row.outcome in ("broken", "inconclusive"):
                    remedy = row.reason.remedy if row.reason else ""
                    yield remedy or f"`pytest -k {row.test}` says what broke"
        elif code == verdict.STALE and self.present.unknown is not None:
            yield "judge it where the subject's files are"
        elif code == verdict.STALE:
            devices = {origins[key].row.device for key in stale}
            yield self._again(sorted(devices.union(self._open_devices(origins))))
        elif code == verdict.REQUIRED_NOT_RUN:
            remedies = [r.reason.remedy for r in rows if r.reason and r.reason.remedy]
            yield from [*dict.fromkeys(remedies)][:_MOST_REMEDIES]
            yield self._again(self._open_devices(origins))

    def _again(self, devices: Sequence[str]) -> str:
        where = f" where there is {' and '.join(devices)}" if devices else ""
        return f"`aprverify verify -k {self.gate.id}`{where}, and give that run to the gate"

    def _open_devices(self, origins: Mapping[str, Origin]) -> list[str]:
        held = {key for key, origin in origins.items() if origin.row.outcome == "held"}
        return sorted(
            {
                case.device
                for name in self.gate.tests
                for identity, case in self.tests[name].cases.items()
                if f"{name}[{identity}]" not in held
            }
        )


def _with_waiver(
    decision: Decision, waiver: Waiver | None, today: date
) -> tuple[Decision, list[str]]:
    """The decision with the policy's waiver beside it, and what is wrong with that waiver."""
    if waiver is None:
        return decision, []
    decision = replace(decision, waiver=waiver)
    name = f"waiver for {waiver.gate} (line {waiver.line})"
    if decision.met:
        return decision, [f"{name}: the gate is met ({decision.status.status.name}); delete it"]
    if not decision.required:
        return decision, [f"{name}: the policy does not require the gate; delete it"]
    if waiver.expires < today:
        why = f"its waiver by {waiver.owner} expired on {waiver.expires}"
    elif decision.status.status < waiver.status:
        why = f"its waiver by {waiver.owner} excuses {waiver.status.name} and better only"
    else:
        return replace(decision, waived=True), []
    return replace(decision, why=(*decision.why, why)), []


def _waivers_for_nothing(present: Present, policy: Policy) -> Iterator[str]:
    gates = {gate.id for contract in present.contracts for gate in contract.gates}
    for name, waiver in policy.waivers.items():
        if name not in gates:
            yield f"waiver for {name} (line {waiver.line}): no contract declares that gate"


def _retired_for_nothing(dropped: Sequence[Retraction], policy: Policy) -> Iterator[str]:
    for name, retired in policy.retired.items():
        if name not in {retraction.gate for retraction in dropped}:
            yield (
                f"retired gate {name} (line {retired.line}): in no run given it blocks shipping, "
                "or it still does here; delete it"
            )


def _lanes_for_nothing(present: Present, policy: Policy) -> Iterator[str]:
    """Lanes that the policy asks of every gate, and that some required gate has no case on."""
    for lane in policy.defaults.lanes:
        without = [
            gate.id
            for contract in present.contracts
            for gate in contract.gates
            if policy.requires(gate)
            and lane in policy.rule(gate.id).lanes
            and not _has_case_on(contract, gate, lane)
        ]
        if without:
            yield (
                f"the policy's defaults ask for {lane}, which says nothing of "
                f"{_listed('required gate', without[:5])}"
                + (f" and {len(without) - 5} more" if len(without) > 5 else "")
                + ": no case there"
            )


def _has_case_on(contract: ContractRecord, gate: GateRecord, lane: str) -> bool:
    return any(
        case.lane == lane
        for test in contract.tests
        if test.id in gate.tests
        for case in test.cases.values()
    )


def _not_required(present: Present, policy: Policy) -> Iterator[str]:
    left_out = [
        gate.id
        for contract in present.contracts
        for gate in contract.gates
        if gate.ship_blocking and not policy.requires(gate)
    ]
    if left_out:
        yield (
            f"the policy does not require {_listed('ship-blocking gate', left_out[:5])}"
            + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
        )


def _foreign(runs: Sequence[Run], present: Present) -> Iterator[str]:
    """Runs of which no verdict is about the present files."""
    for run in runs:
        rows = [row for row in run.rows if row.outcome in VERDICTS]
        if rows and not any(present.source_ids.get(r.key) == r.source_id for r in rows):
            yield (
                f"no row of run {run.header.run_id} is about the files here: it was made from "
                "another version, or in a foreign checkout"
            )


def _environment(origin: Origin) -> Environment:
    return next(e for e in origin.run.environments if e.id == origin.row.environment)


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _rows(amount: int) -> str:
    return "1 row is" if amount == 1 else f"{amount} rows are"
