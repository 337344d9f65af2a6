"""The lines of a run as typed values, so that no view handles raw JSON.

Field by field what `schemas/run.schema.json` describes. Numbers of a comparison are decoded (NaN is
a NaN); measures are as written, since a run does not say which of them are texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from aprverify.contract.model import GPUS_ALONE
from aprverify.evidence.crosses import Matrix
from aprverify.evidence.series import Series
from aprverify.evidence.values import decode

CLAIM_OUTCOMES = ("held", "falsified", "not_run", "broken", "inconclusive")
TEETH_OUTCOMES = ("caught", "survived", "not_run", "broken")
VERDICTS = frozenset({"held", "falsified", "caught", "survived"})


@dataclass(frozen=True)
class TooDear:
    """How many entries were left out: over so many seconds each, or planted under such a claim."""

    seconds: float
    entries: int


@dataclass(frozen=True)
class Selection:
    """What was asked for. `complete`: nothing of the lane was deselected."""

    keyword: str
    markers: str
    paths: tuple[str, ...]
    lane: str
    teeth: str
    complete: bool
    too_dear: TooDear | None = None

    @property
    def dearest(self) -> str:
        """Up to what cost an entry was run, for people; "" where that was no matter."""
        return f"{self.too_dear.seconds:g} s an entry" if self.too_dear else ""

    @property
    def everything(self) -> bool:
        """Whether nothing was deselected, on any lane."""
        return self.complete and self.lane == "all"


@dataclass(frozen=True)
class Source:
    """What was tested. `commit` and `dirty` are None where there is no git."""

    commit: str | None
    dirty: bool | None
    aprverify_version: str
    aprverify_sha256: str


@dataclass(frozen=True)
class Header:
    """The first line of a run. `started` is UTC, ISO 8601."""

    run_id: str
    started: str
    command: tuple[str, ...]
    suite: str
    subject: str
    selection: Selection
    require: tuple[str, ...]
    source: Source
    planned: int


@dataclass(frozen=True)
class GateRecord:
    """A gate: the tests it rests on, and whether a model or the trainer is judged."""

    id: str
    title: str
    ship_blocking: bool
    about: str
    allows_partial: bool
    tests: tuple[str, ...]


@dataclass(frozen=True)
class CaseRecord:
    """A case as the contract declares it: its scale, its device, and what it takes alone.

    `gpus`: how many, while nothing else runs; 0 where others may run beside it.
    """

    scale: str
    device: str
    gpus: int = 0

    @property
    def lane(self) -> str:
        """The lane that runs it, as `aprverify.contract.model.Case.lane` has it."""
        return GPUS_ALONE if self.gpus else self.device


@dataclass(frozen=True)
class TestRecord:
    """A falsification test. `claims` is id → expression, `cases` are by id.

    `line` is where the contract's file declares it, from 1; older runs do not say.
    """

    id: str
    title: str
    falsifier: str
    invariants: tuple[str, ...]
    claims: Mapping[str, str]
    cases: Mapping[str, CaseRecord]
    counter_examples: tuple[str, ...]
    if_fails: str
    line: int | None = None


@dataclass(frozen=True)
class ContractRecord:
    """A contract as it read when the run was made.

    `motivation`, `references` and `invariants` (id → rule) are empty where an older run is silent.
    """

    id: str
    version: str
    title: str
    path: str
    sha256: str
    gates: tuple[GateRecord, ...]
    tests: tuple[TestRecord, ...]
    motivation: str = ""
    references: tuple[str, ...] = ()
    invariants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gpu:
    """One accelerator as the driver names it."""

    name: str
    memory_gib: float
    compute_capability: str


@dataclass(frozen=True)
class Environment:
    """One machine with its software."""

    id: str
    python: str
    platform: str
    cpu: str
    cores: int
    memory_gib: float
    packages: Mapping[str, str]
    gpus: tuple[Gpu, ...]
    driver: str | None
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Reason:
    """Why there is no verdict. `remedy` is a command or an action, and may be empty."""

    kind: str
    detail: str
    remedy: str


@dataclass(frozen=True)
class Comparison:
    """One comparison of a claim, with its values. It reads ``observed op bound``."""

    claim: str
    text: str
    op: str
    observed: Any
    bound: Any
    unit: str
    slack: float | None
    margin: float | None
    holds: bool


@dataclass(frozen=True)
class Plant:
    """The proof that a defect was in force."""

    reached: int
    changed: int
    canary: str


@dataclass(frozen=True)
class FirstFault:
    """What left its bound first. `times_bound`: its error in units of the bound, above 1."""

    phase: str
    where: str
    tensor: str
    times_bound: float
    fault: str
    seen_in: str


@dataclass(frozen=True)
class Localization:
    """What was seen when a falsified entry ran once more, watched; it decides nothing.

    `ending` is named, nothing, failed or left_out; `said` the fault, or why none is named; `more`
    counts further findings; `outcome` is how the claims ended that time, None where they did not.
    """

    ending: str
    said: str
    first: FirstFault | None
    more: int
    outcome: str | None
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Row:
    """What one entry left behind."""

    key: str
    kind: str
    contract: str
    test: str
    falsifier: str
    case: Mapping[str, Any]
    scale: str
    defect: str | None
    outcome: str
    reason: Reason | None
    comparisons: tuple[Comparison, ...]
    measures: Mapping[str, Any]
    plant: Plant | None
    assets: Mapping[str, str]
    source_id: str
    environment: str
    started: str
    seconds: float
    nodeid: str
    worker: str
    series: tuple[Series, ...] = ()
    localization: Localization | None = None

    @property
    def case_id(self) -> str:
        """The part of the key between the test's brackets."""
        suffix = "]" if self.defect is None else f"]!{self.defect}"
        return self.key.removeprefix(f"{self.test}[").removesuffix(suffix)

    @property
    def inapplicable(self) -> bool:
        """Whether its defect cannot be planted in this subject, on whatever machine."""
        reason = self.reason
        return self.kind == "teeth" and reason is not None and reason.kind == "subject"

    @property
    def device(self) -> str:
        """The case's device, or ``-`` where its matrix has none."""
        return str(self.case.get("device", "-"))


@dataclass(frozen=True)
class Footer:
    """The last line of a run. `seconds` counts from the header."""

    finished: str
    seconds: float
    planned: int
    rows: int
    outcomes: Mapping[str, int]
    interrupted: bool


@dataclass(frozen=True)
class Run:
    """A run that was read and not refused. `sha256` is of the bytes of run.jsonl at `path`.

    `matrix` is there in a run of `aprverify teeth`, and decides no status.
    """

    header: Header
    contracts: tuple[ContractRecord, ...]
    environments: tuple[Environment, ...]
    rows: tuple[Row, ...]
    footer: Footer
    path: Path
    sha256: str
    matrix: Matrix | None = None


def instant(text: str) -> datetime:
    """A time of the run file as an aware datetime.

    Raises:
        ValueError: no such date or time.
    """
    return datetime.fromisoformat(text)


def header_from(body: Mapping[str, Any]) -> Header:
    """The header line, validated against the schema before."""
    return Header(
        run_id=body["run_id"],
        started=body["started"],
        command=tuple(body["command"]),
        suite=body["suite"],
        subject=body["subject"],
        selection=_selection(body["selection"]),
        require=tuple(body["require"]),
        source=Source(**body["source"]),
        planned=body["planned"],
    )


def _selection(body: Mapping[str, Any]) -> Selection:
    dear = body.get("too_dear")
    return Selection(
        **{**body, "paths": tuple(body["paths"]), "too_dear": TooDear(**dear) if dear else None}
    )


def contract_from(body: Mapping[str, Any]) -> ContractRecord:
    """A contract line, validated against the schema before."""
    return ContractRecord(
        id=body["id"],
        version=body["version"],
        title=body["title"],
        path=body["path"],
        sha256=body["sha256"],
        gates=tuple(GateRecord(**{**g, "tests": tuple(g["tests"])}) for g in body["gates"]),
        tests=tuple(_test_from(test) for test in body["tests"]),
        motivation=body.get("motivation", ""),
        references=tuple(body.get("references", ())),
        invariants={one["id"]: one["rule"] for one in body.get("invariants", ())},
    )


def _case(body: Mapping[str, Any]) -> CaseRecord:
    return CaseRecord(body["scale"], body["device"], body.get("gpus", 0))


def _test_from(body: Mapping[str, Any]) -> TestRecord:
    return TestRecord(
        id=body["id"],
        title=body["title"],
        falsifier=body["falsifier"],
        invariants=tuple(body["invariants"]),
        claims={claim["id"]: claim["expr"] for claim in body["claims"]},
        cases={c["id"]: _case(c) for c in body["cases"]},
        counter_examples=tuple(body["counter_examples"]),
        if_fails=body["if_fails"],
        line=body.get("line"),
    )


def environment_from(body: Mapping[str, Any]) -> Environment:
    """An environment line, validated against the schema before."""
    return Environment(
        **{**_payload(body), "gpus": tuple(Gpu(**gpu) for gpu in body["gpus"])},
    )


def row_from(body: Mapping[str, Any]) -> Row:
    """A row line, validated against the schema before."""
    fields = _payload(body)
    fields["reason"] = None if body["reason"] is None else Reason(**body["reason"])
    fields["plant"] = None if body["plant"] is None else Plant(**body["plant"])
    fields["comparisons"] = tuple(_comparison_from(item) for item in body["comparisons"])
    fields["series"] = tuple(_series_from(item) for item in body.get("series", ()))
    if "localization" in body:
        fields["localization"] = _localization_from(body["localization"])
    return Row(**fields)


def footer_from(body: Mapping[str, Any]) -> Footer:
    """The footer line, validated against the schema before."""
    return Footer(**_payload(body))


def _comparison_from(body: Mapping[str, Any]) -> Comparison:
    # A comparison of texts has no slack, and its "NaN" is the word: `message contains "NaN"`.
    numeric = body["slack"] is not None
    fields = dict(body)
    for name in ("observed", "bound", "slack", "margin") if numeric else ("margin",):
        fields[name] = decode(fields[name])
    return Comparison(**fields)


def _series_from(body: Mapping[str, Any]) -> Series:
    return Series(**{**body, "x": tuple(body["x"]), "y": tuple(body["y"])})


def _localization_from(body: Mapping[str, Any]) -> Localization:
    first = body["first"]
    fault = first and FirstFault(**{**first, "times_bound": decode(first["times_bound"])})
    return Localization(**{**body, "first": fault, "notes": tuple(body["notes"])})


def _payload(body: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(body)
    for name in ("type", "seq", "prev"):
        fields.pop(name, None)
    return fields
