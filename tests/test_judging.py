"""What a claim's names stand for, and what becomes of a comparison that cannot be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aprverify.contract.claims import ClaimBroken, Outcome
from aprverify.contract.model import build_contract
from aprverify.judging import judge
from aprverify.plan import Entry

from .conftest import contract, falsification

FALSIFIER = "falsify_toy.falsify_sum"


def entry(dtype: str, *claims: str, **changes: Any) -> Entry:
    """A clean entry of one test with `claims`, under a case of `dtype`, width 5 and arch small."""
    matrix = {"device": ["cpu"], "dtype": [dtype], "arch": ["small"], "width": [5]}
    test = falsification(
        "FALSIFY-TOY-001",
        FALSIFIER,
        cases=[{"scale": "full", "matrix": matrix}],
        tolerances={"tolerance": {"float32": 0.5, "bfloat16": 2.0, "why": "measured"}},
        claims=[{"id": f"c{i}", "expr": expr, "why": "so"} for i, expr in enumerate(claims)],
        **changes,
    )
    constants = {"limit": {"value": 7, "why": "agreed"}, "width": {"value": 4, "why": "agreed"}}
    body = contract(falsification_tests=[test], constants=constants)
    built = build_contract(body, Path("toy.yaml"), {"FALSIFY-TOY-001": 1})
    return Entry(built, built.tests[0], built.tests[0].cases[0])


def bounds(judged: Any) -> list[Any]:
    """The bound of each comparison."""
    assert all(isinstance(found, Outcome) for _, found in judged)
    return [found.bound for _, found in judged]


def test_a_tolerance_is_that_of_the_cases_dtype() -> None:
    """Another dtype's would be as good as none."""
    for dtype, tolerance in (("float32", 0.5), ("bfloat16", 2.0)):
        assert bounds([*judge(entry(dtype, "x <= tolerance"), {}, {"x": 1})]) == [tolerance]


def test_names_stand_for_fields_constants_and_parameters_the_last_one_wins() -> None:
    """A field of the configuration, a constant of the contract, a parameter of the case."""
    claims = entry("float32", "x <= depth", "x <= limit", "x <= width")
    fields = {"small": {"depth": 3, "limit": 1, "width": 2}}
    assert bounds([*judge(claims, fields, {"x": 1})]) == [3, 7, 5]


def test_a_comparison_that_cannot_be_made_says_why_and_the_others_are_made() -> None:
    """In the order of the contract, each under its claim."""
    judged = [*judge(entry("float32", "x == 3", "x <= ln(x - 3)", "x >= 1"), {}, {"x": 3})]
    assert [claim for claim, _ in judged] == ["c0", "c1", "c2"]
    assert [type(found) for _, found in judged] == [Outcome, ClaimBroken, Outcome]
