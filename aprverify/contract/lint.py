"""Find everything wrong with a suite's contracts before anything runs.

Every problem names file, line, what is wrong and how to mend it. A contract with a problem is not
run: the plugin turns the problem into a failing item, and `aprverify verify` stops.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from aprverify.assets import RegistryError, read_registry
from aprverify.contract import schema
from aprverify.contract.claims import (
    ORDER,
    RESERVED,
    ClaimSyntaxError,
    Comparison,
    kind_of,
    parse_claim,
)
from aprverify.contract.document import Document, DocumentError, read_document
from aprverify.contract.model import (
    DEVICES,
    LARGEST_SEED,
    Case,
    Contract,
    build_contract,
    expand_cases,
)
from aprverify.planting import PlantingError, load_defects
from aprverify.suite import Suite

Configurations = Mapping[str, Mapping[str, Any]]
_CHANCE = re.compile(r"standard deviation|false alarm|once in 10")
"""In the reason of a constant: no bound on an error but on what chance may do."""


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
    owners: dict[str, Path] = {}
    for path in paths:
        problems, contract = _load(path, loaded.configurations, owners)
        loaded.problems += problems
        loaded.contracts += [contract] if contract else []
    loaded.problems += _unknown_assets(suite, loaded.contracts)
    loaded.problems += _missing_files(suite, loaded.contracts)
    loaded.problems += _unbound(suite, loaded.contracts, complete=not loaded.problems)
    loaded.problems += _unknown_defects(suite, loaded.contracts)
    return loaded


def _load(
    path: Path, configurations: Configurations, owners: dict[str, Path]
) -> tuple[list[Problem], Contract | None]:
    try:
        document = read_document(path)
    except DocumentError as error:
        return [Problem(path, error.line, str(error), error.fix)], None
    problems = lint_document(document, configurations)
    # Two contracts with one id would leave two rows under one key: the later one is not run.
    problems = problems or list(_duplicates_between(document, owners))
    if problems:
        return problems, None
    return [], build_contract(document.data, path, _test_lines(document))


def lint_document(document: Document, configurations: Configurations) -> list[Problem]:
    """Problems of one contract by itself: its form, then what it says."""
    if not isinstance(document.data, dict):
        what = "a contract is a mapping, this file holds something else"
        return [Problem(document.path, 1, what, "begin with `id: C-…`")]
    errors = schema.validator("contract").iter_errors(document.data)
    problems = [_schema_problem(document, error) for error in errors]
    if problems:
        return sorted(problems)
    return sorted(_Linter(document, configurations).run())


def _schema_problem(document: Document, error: Any) -> Problem:
    return Problem(document.path, *schema.fault(document, error, "contract"))


def _test_lines(document: Document) -> dict[str, int]:
    tests = document.data["falsification_tests"]
    return {t["id"]: document.line("falsification_tests", i, "id") for i, t in enumerate(tests)}


def _configurations(suite: Suite, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    path = suite.configurations
    try:
        document = read_document(path)
    except DocumentError as error:
        problems.append(Problem(path, error.line, str(error), error.fix))
        return {}
    data = document.data
    configurations = data.get("configurations") if isinstance(data, dict) else None
    if not isinstance(configurations, dict):
        problems.append(Problem(path, 1, "no `configurations` mapping", "name: {field: value}"))
        return {}
    sound = {}
    for name, fields in configurations.items():
        if isinstance(fields, dict) and all(map(_is_value, fields.values())):
            sound[name] = fields
        else:
            line = document.line("configurations", name)
            what = f"configuration {name} is no mapping of fields to numbers, texts and booleans"
            problems.append(Problem(path, line, what, "name: {field: value}"))
    return sound


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
        self._invariants()
        for name, body in self._constants().items():
            if not _is_value(body["value"]):
                self._add(
                    f"constant {name} is not finite", "no claim could hold", "constants", name
                )
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

    def _tested(self) -> set[str]:
        tests = self.document.data["falsification_tests"]
        return {invariant for test in tests for invariant in test.get("invariants", [])}

    def _invariants(self) -> None:
        for i, invariant in enumerate(self.document.data["invariants"]):
            if invariant["id"] not in self._tested():
                fix = f"add `invariants: [{invariant['id']}]` to a falsification test"
                self._add(f"no test names {invariant['id']}", fix, "invariants", i)

    def _gate(self, i: int, gate: Mapping[str, Any], invariants: set[str]) -> None:
        for bound in gate["binds"]:
            where = ("gates", i, "binds")
            if bound not in invariants:
                self._add(f"{gate['id']} binds {bound}, which is not here", "declare it", *where)

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

    def _gpus(self, test: Mapping[str, Any], case: Case, at: tuple[str | int, ...]) -> None:
        needs = [need for need in case.requires if need.startswith("gpus:")]
        if needs and case.parameters["device"] != "cuda":
            what = f"{test['id']}: a case on {case.parameters['device']} requires {needs[0]}"
            self._add(what, "give it `device: [cuda]`, or drop the need", *at, "cases")
        if len(needs) > 1:
            what = f"{test['id']}: one case requires {' and '.join(needs)}"
            self._add(what, "keep the largest", *at, "cases")

    def _cases(self, test: Mapping[str, Any], cases: list[Case], at: tuple[str | int, ...]) -> None:
        seen: set[str] = set()
        for case in cases:
            if case.id in seen:
                self._add(f"{test['id']}: case {case.id} stands twice", "drop one", *at, "cases")
            seen.add(case.id)
            if case.parameters["device"] not in DEVICES:
                what = f"{test['id']}: device {case.parameters['device']!r}"
                self._add(what, f"use one of {', '.join(DEVICES)}", *at, "cases")
            seed = case.parameters.get("seed", 0)
            if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
                what = f"{test['id']}: seed {seed!r}"
                fix = f"a whole number from 0 to {LARGEST_SEED}: campaigns draw from above"
                self._add(what, fix, *at, "cases")
            self._gpus(test, case, at)
            arch = case.parameters.get("arch")
            if arch is not None and arch not in self.configurations:
                known = ", ".join(self.configurations)
                self._add(
                    f"{test['id']}: no configuration {arch!r}", f"known: {known}", *at, "cases"
                )
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
            ("case parameter", {name: "" for case in cases for name in case.parameters}),
            ("configuration field", _common([self._fields(case) for case in cases])),
        ]
        # A parameter of some cases only can be no part of a claim, and may shadow nothing either.
        kinds = _common([case.parameters for case in cases])
        origin: dict[str, str] = {}
        for source, names in sources:
            for name, kind in names.items():
                other = "keyword" if name in RESERVED else origin.get(name)
                if other:
                    what = f"{test['id']}: {name} is a {source} and also a {other}"
                    self._add(what, "rename one: claims know each name once", *at)
                origin[name] = source
                if kind:
                    kinds[name] = kind
        for name, body in test["measures"].items():
            if body.get("type", "number") == "number" and "unit" not in body:
                what = f"{test['id']}: measure {name} has no unit"
                self._add(what, 'add `unit:`, "1" where it has none', *at, "measures", name)
        return kinds

    def _fields(self, case: Case) -> Mapping[str, Any]:
        return self.configurations.get(str(case.parameters.get("arch")), {})

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
            what = f"{test['id']}, claim {claim['id']}: {error}"
            self._add(what, "the grammar stands in aprverify/contract/claims.py", *at)
            return set()
        names = {name for comparison in comparisons for name in comparison.names()}
        for comparison in comparisons:
            self._comparison(test, claim, comparison, kinds, at)
        for name in sorted(names & self._constants().keys()):
            if "alpha" not in claim and _CHANCE.search(self._constants()[name]["why"]):
                what = f"{test['id']}, claim {claim['id']}: {name} is a matter of chance"
                self._add(what, "add `alpha:`, how often chance alone falsifies the claim", *at)
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
            value = test["tolerances"][name].get(dtype)
            if value is not None and not _is_value(value):
                self._add(f"{test['id']}: tolerance {name} is not finite", "measure it", *at)
            if value is None:
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


def _common(bodies: list[Mapping[str, Any]]) -> dict[str, str]:
    """The kind of each name that every body holds, and holds as the same kind."""
    kinds = [{name: _kind(value) for name, value in body.items()} for body in bodies]
    return {n: k for n, k in kinds[0].items() if all(other.get(n) == k for other in kinds)}


def _is_value(value: Any) -> bool:
    try:
        return isinstance(value, (bool, str)) or math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _duplicates_between(document: Document, owners: dict[str, Path]) -> Iterator[Problem]:
    """Ids that an earlier contract has; `owners` remembers those of this one."""
    own = {document.data["id"]: document.line("id")}
    for section in ("invariants", "gates", "falsification_tests"):
        for i, item in enumerate(document.data.get(section, [])):
            own[item["id"]] = document.line(section, i, "id")
    for identity, line in own.items():
        owner = owners.setdefault(identity, document.path)
        if owner != document.path:
            what = f"{identity} stands also in {owner.name}"
            yield Problem(document.path, line, what, "an id belongs to one contract: rename one")


@dataclass(frozen=True)
class _Function:
    path: Path
    line: int
    arguments: frozenset[str]


def _falsifiers(path: Path) -> dict[str, _Function]:
    """``module.function`` of every falsifier of a module, read without importing it."""
    return {
        f"{path.stem}.{node.name}": _Function(
            path, node.lineno, frozenset(argument.arg for argument in node.args.args)
        )
        for node in ast.parse(path.read_bytes(), filename=str(path)).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("falsify_")
    }


def _unbound(suite: Suite, contracts: Iterable[Contract], *, complete: bool) -> Iterator[Problem]:
    functions: dict[str, _Function] = {}
    unreadable = set()
    for path in sorted(suite.falsifiers_dir.glob("falsify_*.py")):
        try:
            functions |= _falsifiers(path)
        except SyntaxError as error:
            unreadable.add(path.stem)
            yield Problem(path, error.lineno or 1, f"not Python: {error.msg}", "mend the syntax")
        except ValueError as error:
            unreadable.add(path.stem)
            yield Problem(path, 1, f"not Python: {error}", "mend the file")
    bound = set()
    for contract in contracts:
        for test in contract.tests:
            bound.add(test.falsifier)
            if test.falsifier not in functions and test.module not in unreadable:
                what = f"{test.id} has no falsifier: there is no {test.falsifier}"
                fix = f"write {test.function}(subject, case, measured) in {test.module}.py"
                yield Problem(contract.path, test.line, what, fix)
    # While a contract cannot be read, falsifiers that it binds would be blamed without reason.
    for name, function in functions.items():
        if name not in bound and complete:
            fix = f"bind it: `falsifier: {name}` in a contract, or delete it"
            what = f"{name} has no claim: no contract names it"
            yield Problem(function.path, function.line, what, fix)
        if "measured" not in function.arguments:
            fix = "take the argument `measured` and deliver to it what the claims compare"
            yield Problem(function.path, function.line, f"{name} measures nothing", fix)


def _unknown_assets(suite: Suite, contracts: Iterable[Contract]) -> Iterator[Problem]:
    try:
        known = {f"asset:{name}" for name in read_registry(suite.assets_file)}
    except RegistryError as error:
        yield Problem(suite.assets_file, 1, str(error), "mend the registry")
        return
    for contract in contracts:
        for test in contract.tests:
            needs = {need for case in test.cases for need in case.requires}
            for need in sorted(n for n in needs if n.startswith("asset:") and n not in known):
                guess = get_close_matches(need, known, 1)
                fix = f"did you mean {guess[0]!r}?" if guess else "enter it in the registry"
                what = f"{test.id} requires {need}, which {suite.assets_file.name} lacks"
                yield Problem(contract.path, test.line, what, fix)


def _missing_files(suite: Suite, contracts: Iterable[Contract]) -> Iterator[Problem]:
    for contract in contracts:
        for test in contract.tests:
            needs = {need for case in test.cases for need in case.requires}
            for name in sorted(n.partition(":")[2] for n in needs if n.startswith("file:")):
                if not (suite.root / name).is_file():
                    what = f"{test.id} requires the file {name}, which does not exist"
                    yield Problem(contract.path, test.line, what, "name a file of the suite")


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
