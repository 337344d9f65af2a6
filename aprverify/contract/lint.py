"""Find everything wrong with a suite's contracts before anything runs.

Every problem names file, line, what is wrong and how to mend it. A contract with a problem is not
run: the plugin turns the problem into a failing item, and `aprverify verify` stops.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from aprverify.contract.claims import (
    ORDER,
    RESERVED,
    ClaimSyntaxError,
    Comparison,
    kind_of,
    parse_claim,
)
from aprverify.contract.document import Document, DocumentError, read_document
from aprverify.contract.model import Case, Contract, build_contract, expand_cases
from aprverify.planting import PlantingError, load_defects
from aprverify.suite import Suite

Configurations = Mapping[str, Mapping[str, Any]]
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in a suite."""

    path: Path
    line: int
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}\n    fix: {self.fix}"


@dataclass
class Loaded:
    """The contracts that are sound, and the problems of those that are not."""

    contracts: list[Contract] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    configurations: dict[str, dict[str, Any]] = field(default_factory=dict)


def load_suite(suite: Suite) -> Loaded:
    """Read and lint every contract of a suite, and its bindings to falsifiers and defects."""
    loaded = Loaded()
    paths = sorted(p for p in suite.contracts_dir.glob("*.y*ml") if p != suite.configurations)
    if not paths:
        what = "no contract in this folder"
        loaded.problems.append(Problem(suite.contracts_dir, 1, what, "add a contract file"))
    loaded.configurations = _configurations(suite, loaded.problems)
    documents = []
    for path in paths:
        try:
            documents.append(read_document(path))
        except DocumentError as error:
            loaded.problems.append(Problem(path, error.line, str(error), error.fix))
    for document in documents:
        problems = lint_document(document, loaded.configurations)
        loaded.problems += problems
        if not problems:
            lines = _test_lines(document)
            loaded.contracts.append(build_contract(document.data, document.path, lines))
    loaded.problems += _duplicates_between(loaded.contracts)
    loaded.problems += _unbound(suite, loaded.contracts, complete=not loaded.problems)
    loaded.problems += _unknown_defects(suite, loaded.contracts)
    return loaded


def lint_document(document: Document, configurations: Configurations) -> list[Problem]:
    """Problems of one contract by itself: its form, then what it says."""
    problems = [_schema_problem(document, error) for error in _schema_errors(document.data)]
    if problems:
        return sorted(problems)
    return sorted(_Linter(document, configurations).run())


@cache
def _validator() -> Any:
    path = Path(__file__).resolve().parent.parent / "schemas" / "contract.schema.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text()))


def _schema_errors(data: Any) -> Iterator[Any]:
    if not isinstance(data, dict):
        data = {"": data}
    yield from _validator().iter_errors(data)


def _schema_problem(document: Document, error: Any) -> Problem:
    path = tuple(error.absolute_path)
    where = ".".join(str(part) for part in path) or "contract"
    line = document.line(*path)
    fix = "see aprverify/schemas/contract.schema.json"
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        extra = next((k for k in error.instance if k not in known), "")
        line = document.line(*path, extra)
        guess = get_close_matches(extra, known, 1)
        fix = f"did you mean {guess[0]!r}?" if guess else f"known here: {', '.join(known)}"
    elif error.validator == "required":
        fix = "add the field"
    return Problem(document.path, line, f"{where}: {error.message[:200]}", fix)


def _test_lines(document: Document) -> dict[str, int]:
    tests = document.data["falsification_tests"]
    return {t["id"]: document.line("falsification_tests", i, "id") for i, t in enumerate(tests)}


def _configurations(suite: Suite, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    path = suite.configurations
    try:
        document = read_document(path)
    except FileNotFoundError:
        problems.append(Problem(path, 1, "there is no such file", "add the named configurations"))
        return {}
    except DocumentError as error:
        problems.append(Problem(path, error.line, str(error), error.fix))
        return {}
    configurations = document.data.get("configurations") if isinstance(document.data, dict) else None
    if not isinstance(configurations, dict):
        problems.append(Problem(path, 1, "no `configurations` mapping", "name: {field: value}"))
        return {}
    return configurations


@dataclass
class _Linter:
    """Checks what a well-formed contract says."""

    document: Document
    configurations: Configurations
    problems: list[Problem] = field(default_factory=list)

    def run(self) -> list[Problem]:
        data = self.document.data
        self._unique("invariants", "gates", "falsification_tests")
        invariants = {i["id"] for i in data["invariants"]}
        for i, gate in enumerate(data.get("gates", [])):
            self._gate(i, gate, invariants)
        for i, test in enumerate(data["falsification_tests"]):
            self._test(i, test, invariants)
        return self.problems

    def _add(self, what: str, fix: str, *path: str | int) -> None:
        self.problems.append(Problem(self.document.path, self.document.line(*path), what, fix))

    def _unique(self, *sections: str) -> None:
        seen: dict[str, int] = {}
        for section in sections:
            for i, item in enumerate(self.document.data.get(section, [])):
                line = self.document.line(section, i, "id")
                if item["id"] in seen:
                    what = f"{item['id']} stands twice (first on line {seen[item['id']]})"
                    self._add(what, "give each its own id", section, i, "id")
                seen.setdefault(item["id"], line)

    def _gate(self, i: int, gate: Mapping[str, Any], invariants: set[str]) -> None:
        tested = {v for t in self.document.data["falsification_tests"] for v in t.get("invariants", [])}
        for bound in gate["binds"]:
            where = ("gates", i, "binds")
            if bound not in invariants:
                self._add(f"{gate['id']} binds {bound}, which is not here", "declare it", *where)
            elif bound not in tested:
                what = f"{gate['id']} binds {bound}, which no test names"
                self._add(what, f"add `invariants: [{bound}]` to a falsification test", *where)

    def _test(self, i: int, test: Mapping[str, Any], invariants: set[str]) -> None:
        at = ("falsification_tests", i)
        for invariant in test.get("invariants", []):
            if invariant not in invariants:
                self._add(f"{test['id']} names {invariant}, which is not here", "declare it", *at)
        cases = expand_cases(test["cases"])
        self._cases(test, cases, at)
        self._counter_examples(test, cases, at)
        kinds = self._kinds(test, cases, at)
        used: set[str] = set()
        for j, claim in enumerate(test["claims"]):
            used |= self._claim(test, claim, kinds, cases, (*at, "claims", j, "expr"))
        for name, body in test["measures"].items():
            if name not in used and not body.get("reported", False):
                fix = "claim something about it, or mark it `reported: true`"
                self._add(f"{test['id']}: no claim uses {name}", fix, *at, "measures", name)

    def _cases(self, test: Mapping[str, Any], cases: list[Case], at: tuple[str | int, ...]) -> None:
        seen: set[str] = set()
        for case in cases:
            if case.id in seen:
                self._add(f"{test['id']}: case {case.id} stands twice", "drop one", *at, "cases")
            seen.add(case.id)
            if case.parameters["device"] not in DEVICES:
                what = f"{test['id']}: device {case.parameters['device']!r}"
                self._add(what, f"use one of {', '.join(DEVICES)}", *at, "cases")
            arch = case.parameters.get("arch")
            if arch is not None and arch not in self.configurations:
                known = ", ".join(self.configurations)
                self._add(f"{test['id']}: no configuration {arch!r}", f"known: {known}", *at, "cases")
        identities = [claim["id"] for claim in test["claims"]]
        for j, identity in enumerate(identities):
            if identity in identities[:j]:
                self._add(f"claim {identity} stands twice", "rename one", *at, "claims", j, "id")

    def _counter_examples(
        self, test: Mapping[str, Any], cases: list[Case], at: tuple[str | int, ...]
    ) -> None:
        seen: set[str] = set()
        for j, example in enumerate(test["counter_examples"]):
            where = (*at, "counter_examples", j)
            if example["defect"] in seen:
                self._add(f"{example['defect']} is declared twice", "drop one", *where)
            seen.add(example["defect"])
            if not any(case.matches(example.get("where", {})) for case in cases):
                what = f"{test['id']}: no case matches {example['where']} of {example['defect']}"
                self._add(what, "name a case that the matrix holds", *where)

    def _kinds(
        self, test: Mapping[str, Any], cases: list[Case], at: tuple[str | int, ...]
    ) -> dict[str, str]:
        """The kind of every name that a claim of this test may use; collisions are problems."""
        sources: list[tuple[str, Mapping[str, Any]]] = [
            ("measure", {n: b.get("type", "number") for n, b in test["measures"].items()}),
            ("constant", {n: _kind(b["value"]) for n, b in self._constants().items()}),
            ("tolerance", dict.fromkeys(test.get("tolerances", {}), "number")),
            ("case parameter", _common_parameters(cases)),
        ]
        if all("arch" in case.parameters for case in cases):
            first = next(iter(self.configurations.values()), {})
            sources.append(("configuration field", {n: _kind(v) for n, v in first.items()}))
        kinds: dict[str, str] = {}
        origin: dict[str, str] = {}
        for source, names in sources:
            for name, kind in names.items():
                if name in kinds or name in RESERVED:
                    what = f"{test['id']}: {name} is a {source} and also a {origin.get(name, 'keyword')}"
                    self._add(what, "rename one: claims know each name once", *at)
                kinds[name], origin[name] = kind, source
        for name, body in test["measures"].items():
            if body.get("type", "number") == "number" and "unit" not in body:
                what = f"{test['id']}: measure {name} has no unit"
                self._add(what, 'add `unit:`, "1" where it has none', *at, "measures", name)
        return kinds

    def _constants(self) -> Mapping[str, Any]:
        constants: Mapping[str, Any] = self.document.data.get("constants", {})
        return constants

    def _claim(
        self,
        test: Mapping[str, Any],
        claim: Mapping[str, Any],
        kinds: Mapping[str, str],
        cases: list[Case],
        at: tuple[str | int, ...],
    ) -> set[str]:
        try:
            comparisons = parse_claim(claim["expr"])
        except ClaimSyntaxError as error:
            self._add(f"{test['id']}, claim {claim['id']}: {error}", "see `aprverify.contract.claims`", *at)
            return set()
        names = {name for comparison in comparisons for name in comparison.names()}
        for comparison in comparisons:
            self._comparison(test, claim, comparison, kinds, at)
        for name in sorted(names & set(test.get("tolerances", {}))):
            self._tolerance(test, name, cases, at)
        return names

    def _comparison(
        self,
        test: Mapping[str, Any],
        claim: Mapping[str, Any],
        comparison: Comparison,
        kinds: Mapping[str, str],
        at: tuple[str | int, ...],
    ) -> None:
        prefix = f"{test['id']}, claim {claim['id']}"
        unknown = [name for name in comparison.names() if name not in kinds]
        for name in unknown:
            guess = get_close_matches(name, kinds, 1)
            fix = f"did you mean {guess[0]!r}?" if guess else f"known: {', '.join(sorted(kinds))}"
            self._add(f"{prefix}: nothing is called {name!r}", fix, *at)
        if unknown:
            return
        if not any(name in test["measures"] for name in comparison.names()):
            what = f"{prefix}: `{comparison.text}` compares nothing that was measured"
            self._add(what, "each comparison holds a measure", *at)
        try:
            fault = _type_fault(comparison, kinds)
        except ClaimSyntaxError as error:
            fault = str(error)
        if fault:
            self._add(f"{prefix}: `{comparison.text}`: {fault}", "compare like with like", *at)

    def _tolerance(
        self, test: Mapping[str, Any], name: str, cases: list[Case], at: tuple[str | int, ...]
    ) -> None:
        for dtype in sorted({str(case.parameters.get("dtype", "no dtype")) for case in cases}):
            if dtype not in test["tolerances"][name]:
                what = f"{test['id']}: tolerance {name} has no value for {dtype}"
                self._add(what, "add it, measured, with a reason", *at)


def _type_fault(comparison: Comparison, kinds: Mapping[str, str]) -> str:
    left = kind_of(comparison.left, kinds)
    if isinstance(comparison.right, tuple):
        wrong = [v for v in comparison.right if _kind(v) != left]
        return f"a {left} is never {wrong[0]!r}" if wrong else ""
    right = kind_of(comparison.right, kinds)
    if comparison.op not in ORDER:
        return "" if left == "text" else f"{comparison.op} needs a text, this is a {left}"
    if left != right:
        return f"a {left} against a {right}"
    return "" if left == "number" or comparison.op == "==" else f"a {left} has no order"


def _common_parameters(cases: list[Case]) -> dict[str, str]:
    first = cases[0].parameters
    return {n: _kind(v) for n, v in first.items() if all(n in c.parameters for c in cases)}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _duplicates_between(contracts: Iterable[Contract]) -> Iterator[Problem]:
    seen: dict[str, Path] = {}
    for contract in contracts:
        own = [contract.id, *(i.id for i in contract.invariants), *(g.id for g in contract.gates)]
        for identity in [*own, *(t.id for t in contract.tests)]:
            if identity in seen:
                what = f"{identity} stands also in {seen[identity]}"
                yield Problem(contract.path, 1, what, "an id belongs to one contract")
            seen.setdefault(identity, contract.path)


def falsifier_functions(suite: Suite) -> dict[str, tuple[Path, int]]:
    """``module.function`` → (file, line) of every falsifier, read without importing anything."""
    found = {}
    for path in sorted(suite.falsifiers_dir.glob("falsify_*.py")):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("falsify_"):
                found[f"{path.stem}.{node.name}"] = (path, node.lineno)
    return found


def _unbound(suite: Suite, contracts: Iterable[Contract], *, complete: bool) -> Iterator[Problem]:
    try:
        functions = falsifier_functions(suite)
    except SyntaxError as error:
        path = Path(error.filename or suite.falsifiers_dir)
        yield Problem(path, error.lineno or 1, f"not Python: {error.msg}", "mend the syntax")
        return
    bound = set()
    for contract in contracts:
        for test in contract.tests:
            bound.add(test.falsifier)
            if test.falsifier not in functions:
                what = f"{test.id} has no falsifier: there is no {test.falsifier}"
                fix = f"write {test.function}(subject, case, measured) in {test.module}.py"
                yield Problem(contract.path, test.line, what, fix)
    # While a contract cannot be read, falsifiers that it binds would be blamed without reason.
    for name, (path, line) in functions.items() if complete else ():
        if name not in bound:
            fix = f"bind it: `falsifier: {name}` in a contract, or delete it"
            yield Problem(path, line, f"{name} has no claim: no contract names it", fix)


def _unknown_defects(suite: Suite, contracts: Iterable[Contract]) -> Iterator[Problem]:
    try:
        defects = load_defects(suite)
    except PlantingError as error:
        yield Problem(suite.defects_dir, 1, str(error), "mend the defect's module")
        return
    for contract in contracts:
        for test in contract.tests:
            for example in test.counter_examples:
                if example.defect not in defects:
                    guess = get_close_matches(example.defect, defects, 1)
                    fix = f"did you mean {guess[0]!r}?" if guess else "plant it, or drop the line"
                    what = f"{test.id}: no defect is called {example.defect!r}"
                    yield Problem(contract.path, test.line, what, fix)
