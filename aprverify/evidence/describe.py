"""A contract as run.jsonl records it, so that a report needs nothing but the run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from aprverify.contract.model import Case, Contract, FalsificationTest, Gate


def describe_contract(contract: Contract, root: Path) -> dict[str, Any]:
    """The contract line, without type, seq and prev."""
    return {
        "id": contract.id,
        "version": contract.version,
        "title": contract.title,
        "path": contract.path.relative_to(root).as_posix(),
        "sha256": hashlib.sha256(contract.path.read_bytes()).hexdigest(),
        "motivation": contract.motivation,
        "references": list(contract.references),
        "invariants": [{"id": one.id, "rule": one.rule} for one in contract.invariants],
        "gates": _gates(contract),
        "tests": [_test(test) for test in contract.tests],
    }


def _gates(contract: Contract) -> list[dict[str, Any]]:
    """The declared gates, then one for every family of tests that no gate rests on."""
    gates = [_gate(gate, contract) for gate in contract.gates]
    bound = {test for gate in gates for test in gate["tests"]}
    families: dict[str, list[FalsificationTest]] = {}
    for test in contract.tests:
        if test.id not in bound:
            families.setdefault(test.family, []).append(test)
    return gates + [_family_gate(family, tests) for family, tests in families.items()]


def _gate(gate: Gate, contract: Contract) -> dict[str, Any]:
    return {
        "id": gate.id,
        "title": gate.rule,
        "ship_blocking": gate.ship_blocking,
        "about": gate.about,
        "allows_partial": gate.allows_partial,
        "tests": [t.id for t in contract.tests if set(t.invariants) & set(gate.binds)],
    }


def _family_gate(family: str, tests: list[FalsificationTest]) -> dict[str, Any]:
    return {
        "id": family,
        "title": tests[0].rule,
        "ship_blocking": any(test.ship_blocking for test in tests),
        "about": tests[0].about,
        "allows_partial": all(test.allows_partial for test in tests),
        "tests": [test.id for test in tests],
    }


def _test(test: FalsificationTest) -> dict[str, Any]:
    return {
        "id": test.id,
        "title": test.rule,
        "line": test.line,
        "falsifier": test.falsifier,
        "invariants": list(test.invariants),
        "claims": [{"id": claim.id, "expr": claim.expr} for claim in test.claims],
        "cases": [_case(case) for case in test.cases],
        "counter_examples": [example.defect for example in test.counter_examples],
        "if_fails": test.if_fails,
    }


def _case(case: Case) -> dict[str, Any]:
    alone = {"gpus": case.gpus} if case.alone else {}
    return {"id": case.id, "scale": case.scale, "device": case.device, **alone}
