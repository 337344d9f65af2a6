"""Reads a run back and refuses whatever could not have been written by an honest, finished run.

Every view and every gate goes through `read_run`; there is no lenient way to read evidence.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import best_match

from aprverify.contract.model import case_id
from aprverify.evidence import accounts, declarations
from aprverify.evidence.claimed import Claimed
from aprverify.evidence.consistency import contradictions
from aprverify.evidence.crosses import (
    Cross,
    Matrix,
    crosses_from,
    faults_of_counts,
    faults_of_crosses,
    faults_of_matrix,
    matrix_from,
)
from aprverify.evidence.forms import Forms
from aprverify.evidence.records import (
    ContractRecord,
    Environment,
    Footer,
    Header,
    Row,
    Run,
    TestRecord,
    contract_from,
    environment_from,
    footer_from,
    header_from,
    instant,
    row_from,
)
from aprverify.evidence.refusals import (
    BrokenChain,
    ClockOrder,
    CountMismatch,
    DamagedLine,
    DuplicateKey,
    EmptyRun,
    EvidenceRefused,
    InconsistentRow,
    MissingRun,
    NoFooter,
    SchemaViolation,
    UnknownContract,
    UnknownEnvironment,
    UnknownTest,
)
from aprverify.evidence.values import environment_id

RUN_FILE = "run.jsonl"
_PLACE = ("type", "seq", "prev", "id")
_LONGEST_INTEGER = 300
_SHOWN = 3
# JSON Schema calls 3.0 an integer; a count of a run is never written so.
_Validator = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: type(value) is int
    ),
)


def read_run(path: Path) -> Run:
    """The run in a folder, or in a run.jsonl.

    Raises:
        EvidenceRefused: one subclass a reason; the message says which line, what and what to do.
    """
    file = path / RUN_FILE if path.is_dir() else path
    data = _bytes_of(file)
    reading = _Reading(file)
    number = 0
    try:
        for number, body in _lines(file, data):
            reading.accept(number, body)
    except RecursionError:
        raise DamagedLine(file, number + 1, "nested deeper than any run") from None
    return reading.finish(hashlib.sha256(data).hexdigest())


def read_unfinished(file: Path) -> list[dict[str, Any]]:
    """The lines of a run whose writer was killed, each checked as `read_run` checks it.

    A last line that was cut off is left out. They are no evidence until somebody has accounted for
    what is missing and closed the run: see `aprverify recover`.

    Raises:
        EvidenceRefused: a line is not as it was written, or the run has a footer.
    """
    data = _bytes_of(file)
    reading, bodies = _Reading(file), []
    for number, body in _lines(file, data[: data.rfind(b"\n") + 1]):
        if body["type"] == "footer":
            raise SchemaViolation(file, number, "the run has a footer: it was not killed")
        reading.accept(number, body)
        bodies.append(body)
    return bodies


def _bytes_of(file: Path) -> bytes:
    if file.exists() and not file.is_file():
        raise MissingRun(file, None, "is no file")  # a pipe never ends, a device neither
    try:
        return file.read_bytes()
    except OSError as error:
        raise MissingRun(file, None, f"cannot be read: {error.strerror}") from None


def _lines(file: Path, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    if not data:
        raise EmptyRun(file, None, "the file is empty")
    lines = data.split(b"\n")
    if lines.pop() != b"":
        raise DamagedLine(file, len(lines) + 1, "the last line was cut off")
    previous = ""
    forms = Forms(_schema())
    for number, line in enumerate(lines, start=1):
        body = _parse(file, number, line)
        form = forms.form(body)
        if not forms.is_known(form):
            _check_schema(file, number, body)
            forms.remember(form)
        if body["seq"] != number - 1:
            raise BrokenChain(file, number, f"seq is {body['seq']}, expected {number - 1}")
        if body["prev"] != previous:
            raise BrokenChain(file, number, "prev is not the hash of the line before it")
        previous = hashlib.sha256(line).hexdigest()
        yield number, body


def _parse(file: Path, number: int, line: bytes) -> dict[str, Any]:
    if line != line.strip():
        raise DamagedLine(file, number, "blanks or a carriage return around the JSON")
    try:
        # JSON lets half of a surrogate pair through.
        body = _DECODER.decode(line.decode("utf-8"))
        if b"\\u" in line:
            json.dumps(body, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise DamagedLine(file, number, f"no JSON: {error}") from None
    if not isinstance(body, dict):
        raise DamagedLine(file, number, "JSON, but no object")
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object repeats a key")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"a bare {name}")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is beyond the largest number")
    return value


def _int(text: str) -> int:
    # Longer ones have no float, and comparing and printing them would fail later.
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_float, parse_int=_int
)


@functools.cache
def _schema() -> dict[str, Any]:
    text = resources.files("aprverify").joinpath("schemas/run.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@functools.cache
def _validators() -> Mapping[str, Draft202012Validator]:
    # The schema's own if/then would try five branches on every line.
    schema = _schema()
    kinds = schema["properties"]["type"]["enum"]
    return {
        kind: _Validator(
            {
                "$schema": schema["$schema"],
                "$defs": schema["$defs"],
                "type": "object",
                "required": schema["required"],
                "properties": schema["properties"],
                "allOf": [{"$ref": f"#/$defs/{kind}"}],
            }
        )
        for kind in kinds
    }


def _check_schema(file: Path, number: int, body: Mapping[str, Any]) -> None:
    kind = body.get("type")
    validator = _validators().get(kind) if isinstance(kind, str) else None
    if validator is None:
        raise SchemaViolation(file, number, f"type is {kind!r}, no kind of line")
    error = best_match(validator.iter_errors(body))
    if error is not None:
        message = error.message if len(error.message) <= 200 else f"{error.message[:200]}…"
        raise SchemaViolation(file, number, f"{kind} line, {error.json_path}: {message}")


class _Reading:
    """The state between lines: what was declared so far, and what may come next."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._header: Header | None = None
        self._contracts: dict[str, ContractRecord] = {}
        self._tests: dict[str, tuple[str, TestRecord]] = {}
        self._environments: dict[str, Environment] = {}
        self._rows: dict[str, Row] = {}
        self._footer: Footer | None = None
        self._claimed = Claimed()
        self._matrix: Matrix | None = None
        self._crosses: list[Cross] = []
        self._wrong: list[str] = []

    def accept(self, number: int, body: Mapping[str, Any]) -> None:
        kind = body["type"]
        if (self._header is None) != (kind == "header"):
            raise SchemaViolation(self._file, number, f"a {kind} line here: one header comes first")
        if self._footer is not None:
            raise SchemaViolation(self._file, number, f"a {kind} line after the footer")
        match kind:
            case "header":
                self._header = header_from(body)
                self._times(number, body["started"])
                self._refuse(
                    SchemaViolation,
                    number,
                    declarations.invisible((body["run_id"], body["suite"], body["subject"])),
                )
            case "contract":
                self._refuse(DuplicateKey, number, declarations.repeated(body))
                self._refuse(UnknownTest, number, declarations.unbound(body))
                self._refuse(SchemaViolation, number, declarations.unreadable(body))
                self._contract(number, contract_from(body))
            case "environment":
                self._environment(number, body)
            case "row":
                if self._matrix is not None:
                    raise SchemaViolation(self._file, number, "a row line after the matrix")
                self._row(number, row_from(body))
            case "matrix":
                if self._matrix is not None:
                    raise SchemaViolation(self._file, number, "a second matrix line")
                self._matrix = matrix_from(body)
                held = {row.key: row.outcome for row in self._rows.values()}
                found = faults_of_matrix(self._matrix, held, self._environments)
                self._refuse(InconsistentRow, number, found)
            case "cross":
                self._cross(number, body)
            case "footer":
                self._footer = self._counted(number, footer_from(body))

    def finish(self, sha256: str) -> Run:
        if self._header is None or self._footer is None:
            raise NoFooter(self._file, None, "the run has no footer: it never finished")
        return Run(
            header=self._header,
            contracts=tuple(self._contracts.values()),
            environments=tuple(self._environments.values()),
            rows=tuple(self._rows.values()),
            footer=self._footer,
            path=self._file,
            sha256=sha256,
            matrix=self._whole_matrix(),
        )

    def _cross(self, number: int, body: Mapping[str, Any]) -> None:
        if self._matrix is None:
            raise SchemaViolation(self._file, number, "a cross line before the matrix line")
        crosses = crosses_from(body)
        claims = {name: list(test.claims) for name, (_, test) in self._tests.items()}
        self._refuse(InconsistentRow, number, faults_of_crosses(self._matrix, crosses, claims))
        if body["canary"] == "different":
            self._wrong.append(body["defect"])
        self._crosses += crosses

    def _whole_matrix(self) -> Matrix | None:
        if self._matrix is None:
            return None
        return replace(self._matrix, crosses=tuple(self._crosses), wrong=tuple(self._wrong))

    def _contract(self, number: int, contract: ContractRecord) -> None:
        if contract.id in self._contracts:
            raise DuplicateKey(self._file, number, f"contract {contract.id} is declared twice")
        self._contracts[contract.id] = contract
        for test in contract.tests:
            if test.id in self._tests:
                raise DuplicateKey(self._file, number, f"test {test.id} is declared twice")
            self._tests[test.id] = (contract.id, test)

    def _environment(self, number: int, body: Mapping[str, Any]) -> None:
        environment = environment_from(body)
        if environment.id in self._environments:
            raise DuplicateKey(self._file, number, f"{environment.id} is declared twice")
        if environment.id != environment_id({k: v for k, v in body.items() if k not in _PLACE}):
            raise UnknownEnvironment(
                self._file, number, f"{environment.id} is not the hash of what the line describes"
            )
        self._environments[environment.id] = environment

    def _row(self, number: int, row: Row) -> None:
        if row.key in self._rows:
            raise DuplicateKey(self._file, number, f"a second row for {row.key}")
        test = self._declared(number, row)
        environment = self._environments.get(row.environment)
        if environment is None:
            raise UnknownEnvironment(self._file, number, f"{row.key} names {row.environment}")
        assert self._header is not None
        self._times(number, self._header.started, row.started)
        for contradiction in contradictions(row, test, environment):
            raise InconsistentRow(self._file, number, f"{row.key}: {contradiction}")
        for fault in self._claimed.faults(row, test):
            raise InconsistentRow(self._file, number, f"{row.key}: {fault}")
        self._rows[row.key] = row

    def _refuse(self, refusal: type[EvidenceRefused], number: int, faults: Iterable[str]) -> None:
        if found := list(faults):
            more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
            raise refusal(self._file, number, "; ".join(found[:_SHOWN]) + more)

    def _declared(self, number: int, row: Row) -> TestRecord:
        if row.contract not in self._contracts:
            raise UnknownContract(self._file, number, f"{row.key} names contract {row.contract}")
        contract, test = self._tests.get(row.test, ("", None))
        if test is None or contract != row.contract:
            raise UnknownTest(self._file, number, f"{row.contract} declares no test {row.test}")
        for wrong in _undeclared(row, test):
            raise UnknownTest(self._file, number, f"{row.key}: {wrong}")
        return test

    def _counted(self, number: int, footer: Footer) -> Footer:
        assert self._header is not None
        counts = {
            "planned in the header": self._header.planned,
            "planned in the footer": footer.planned,
            "rows in the footer": footer.rows,
            "row lines": len(self._rows),
        }
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise CountMismatch(self._file, number, f"the counts differ: {told}")
        seen = Counter(row.outcome for row in self._rows.values())
        if dict(seen) != {name: count for name, count in footer.outcomes.items() if count}:
            raise CountMismatch(
                self._file, number, f"outcomes {dict(footer.outcomes)}, the rows have {dict(seen)}"
            )
        started = [row.started for row in self._rows.values()]
        latest = max(started, key=instant, default=self._header.started)
        self._times(number, self._header.started, latest, footer.finished)
        self._added_up(number, self._header, footer)
        if (matrix := self._whole_matrix()) is not None:
            declared = frozenset(d for _, t in self._tests.values() for d in t.counter_examples)
            self._refuse(CountMismatch, number, faults_of_counts(matrix, declared))
            if footer.seconds + 2 < matrix.seconds:
                raise ClockOrder(self._file, number, "the matrix took longer than the run")
        return footer

    def _added_up(self, number: int, header: Header, footer: Footer) -> None:
        rows = list(self._rows.values())
        crossed = {self._matrix.environment} if self._matrix is not None else set()
        for refusal, faults in (
            (CountMismatch, accounts.missing_entries(header, self._contracts.values(), self._rows)),
            (CountMismatch, accounts.left_out_though_complete(header)),
            (CountMismatch, accounts.unknown_outcomes(footer)),
            (InconsistentRow, accounts.not_selected(header, self._contracts.values(), rows)),
            (InconsistentRow, accounts.hidden_interruption(footer, rows)),
            (ClockOrder, accounts.impossible_durations(header, footer, rows)),
            (
                UnknownEnvironment,
                accounts.unused_environments(self._environments.keys() - crossed, rows),
            ),
        ):
            self._refuse(refusal, number, faults)

    def _times(self, number: int, *times: str) -> None:
        try:
            # Whole seconds, since writers need not agree on how many digits follow.
            seconds = [instant(text).replace(microsecond=0) for text in times]
        except ValueError as error:
            raise ClockOrder(self._file, number, str(error)) from None
        if seconds != sorted(seconds):
            raise ClockOrder(self._file, number, f"these run backwards: {', '.join(times)}")


def _undeclared(row: Row, test: TestRecord) -> Iterator[str]:
    suffix = "" if row.defect is None else f"!{row.defect}"
    name = row.case_id
    case = test.cases.get(name)
    if case is None or row.key != f"{row.test}[{name}]{suffix}":
        yield "the key is no TEST[CASE] or TEST[CASE]!DEFECT with a declared case and its defect"
    elif row.scale != case.scale:
        yield f"scale is {row.scale}, the contract says {case.scale}"
    elif row.falsifier != test.falsifier:
        yield f"falsifier is {row.falsifier}, the contract says {test.falsifier}"
    elif row.case.get("device") != case.device:
        yield f"its case is on {row.device}, the contract says {case.device}"
    elif "=" in name and (found := case_id(row.case)) != name:
        yield f"its case is {found}, its key says {name}"
    elif row.defect is not None and row.defect not in test.counter_examples:
        yield f"{row.defect} is no counter-example of the test"
