"""What a contract says, as plain frozen data. Built only from documents that lint clean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from aprverify.contract.claims import Comparison, Value, parse_claim

Scale = str  # "full" or "reduced"
DEVICES = ("cpu", "cuda")
LARGEST_SEED = 2**20 - 1
"""Of a contract; campaigns draw from above, so that they repeat no case."""
GPUS_ALONE = "gpus"
"""The lane of cases beside which nothing runs: they time a GPU, or take several."""
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._:+/-]")


@dataclass(frozen=True)
class Invariant:
    """What must be true."""

    id: str
    rule: str


@dataclass(frozen=True)
class Gate:
    """A decision that rests on the tests of some invariants."""

    id: str
    rule: str
    binds: tuple[str, ...]
    ship_blocking: bool
    about: str
    allows_partial: bool


@dataclass(frozen=True)
class Measure:
    """One quantity that a falsifier delivers. `kind` is number, text or boolean."""

    name: str
    kind: str
    unit: str


@dataclass(frozen=True)
class Claim:
    """A named conjunction of comparisons. `alpha`: how often chance alone falsifies it, if ever."""

    id: str
    expr: str
    comparisons: tuple[Comparison, ...]
    alpha: float | None = None


@dataclass(frozen=True)
class CounterExample:
    """A defect that the test declares it catches, under the first case that matches `where`."""

    defect: str
    where: Mapping[str, Value]


@dataclass(frozen=True)
class Case:
    """One point of a test's matrix. Parameters are attributes: ``case.dtype``."""

    id: str
    scale: Scale
    parameters: Mapping[str, Value]
    requires: tuple[str, ...]

    @property
    def gpus(self) -> int:
        """How many GPUs it takes; 0 on the CPU."""
        least = 1 if self.parameters.get("device") == "cuda" else 0
        needs = (need.partition(":") for need in self.requires)
        return max([least, *(int(number) for kind, _, number in needs if kind == "gpus")])

    @property
    def lane(self) -> str:
        """The lane that runs it: its device, or `GPUS_ALONE`."""
        return GPUS_ALONE if self.alone else str(self.parameters.get("device"))

    @property
    def alone(self) -> bool:
        """Whether nothing else may run meanwhile: it times a GPU, or takes several."""
        return any(need.startswith("gpus:") for need in self.requires)

    def __getattr__(self, name: str) -> Any:
        parameters = self.__dict__.get("parameters", {})
        if name in parameters:
            return parameters[name]
        raise AttributeError(f"this case has no {name!r}, only {', '.join(parameters)}")

    def matches(self, where: Mapping[str, Value]) -> bool:
        """Whether every parameter of `where`, `scale` among them, has that value here."""
        have = {**self.parameters, "scale": self.scale}
        return all(have.get(key) == value for key, value in where.items())


@dataclass(frozen=True)
class FalsificationTest:
    """A falsifier with its cases, measures, claims and counter-examples."""

    id: str
    line: int
    rule: str
    module: str
    function: str
    invariants: tuple[str, ...]
    ship_blocking: bool
    allows_partial: bool
    about: str
    cases: tuple[Case, ...]
    measures: Mapping[str, Measure]
    tolerances: Mapping[str, Mapping[str, float]]
    claims: tuple[Claim, ...]
    counter_examples: tuple[CounterExample, ...]
    if_fails: str

    @property
    def family(self) -> str:
        """The id before the dot: parts of one test share it."""
        return self.id.partition(".")[0]

    @property
    def falsifier(self) -> str:
        """``module.function``."""
        return f"{self.module}.{self.function}"


@dataclass(frozen=True)
class Contract:
    """One contract file."""

    id: str
    version: str
    title: str
    path: Path
    constants: Mapping[str, Value]
    invariants: tuple[Invariant, ...]
    gates: tuple[Gate, ...]
    tests: tuple[FalsificationTest, ...]
    motivation: str = ""
    references: tuple[str, ...] = ()

    def gates_of(self, test: FalsificationTest) -> tuple[Gate, ...]:
        """The gates that rest on `test`."""
        return tuple(g for g in self.gates if set(g.binds) & set(test.invariants))


def build_contract(
    data: Mapping[str, Any], path: Path, line_of_test: Mapping[str, int]
) -> Contract:
    """A contract from data that the linter has accepted."""
    return Contract(
        id=data["id"],
        version=data["version"],
        title=data["title"],
        path=path,
        constants={name: body["value"] for name, body in data.get("constants", {}).items()},
        invariants=tuple(Invariant(i["id"], i["rule"].strip()) for i in data["invariants"]),
        gates=tuple(_gate(gate) for gate in data.get("gates", [])),
        tests=tuple(_test(t, line_of_test[t["id"]]) for t in data["falsification_tests"]),
        motivation=data["motivation"].strip(),
        references=tuple(reference.strip() for reference in data["references"]),
    )


def expand_cases(specs: list[Mapping[str, Any]]) -> list[Case]:
    """Every case of a test's matrices, in the order written."""
    cases = []
    for spec in specs:
        names = list(spec["matrix"])
        for values in product(*spec["matrix"].values()):
            parameters = dict(zip(names, values, strict=True))
            requires = tuple(spec.get("requires", ()))
            cases.append(Case(case_id(parameters), spec["scale"], parameters, requires))
    return cases


def case_id(parameters: Mapping[str, Value]) -> str:
    """The id of the case with these parameters."""
    return ",".join([f"{name}={_escape(value)}" for name, value in parameters.items()])


def spell(value: Value) -> str:
    """A value of a matrix as the contract writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escape(value: Value) -> str:
    # A case id is part of a pytest node id, so it holds printable ASCII without brackets.
    return _NOT_PLAIN.sub(lambda found: f"%{ord(found[0]):02x}", spell(value))


def _gate(data: Mapping[str, Any]) -> Gate:
    return Gate(
        id=data["id"],
        rule=data["rule"].strip(),
        binds=tuple(data["binds"]),
        ship_blocking=data["ship_blocking"],
        about=data.get("about", "trainer"),
        allows_partial=data.get("allows_partial", False),
    )


def _test(data: Mapping[str, Any], line: int) -> FalsificationTest:
    module, _, function = data["falsifier"].partition(".")
    return FalsificationTest(
        id=data["id"],
        line=line,
        rule=data["rule"].strip(),
        module=module,
        function=function,
        invariants=tuple(data.get("invariants", ())),
        ship_blocking=data.get("ship_blocking", False),
        allows_partial=data.get("allows_partial", False),
        about=data.get("about", "trainer"),
        cases=tuple(expand_cases(data["cases"])),
        measures={
            name: Measure(name, body.get("type", "number"), body.get("unit", ""))
            for name, body in data["measures"].items()
        },
        tolerances={
            name: {dtype: value for dtype, value in body.items() if dtype != "why"}
            for name, body in data.get("tolerances", {}).items()
        },
        claims=tuple(
            Claim(c["id"], c["expr"], tuple(parse_claim(c["expr"])), c.get("alpha"))
            for c in data["claims"]
        ),
        counter_examples=tuple(
            CounterExample(c["defect"], c.get("where", {})) for c in data["counter_examples"]
        ),
        if_fails=data["if_fails"].strip(),
    )
