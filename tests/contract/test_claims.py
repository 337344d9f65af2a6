"""The grammar of claims: what it means, what it refuses, and that nothing gets past it."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aprverify.contract.claims import (
    ClaimBroken,
    ClaimSyntaxError,
    Outcome,
    compare,
    evaluate,
    kind_of,
    parse_claim,
)


def outcomes(claim: str, **values: Any) -> list[Outcome]:
    """Every comparison of a claim, with every value a measure in metres."""
    units = dict.fromkeys(values, "m")
    return [evaluate(comparison, values, units) for comparison in parse_claim(claim)]


def holds(claim: str, **values: Any) -> bool:
    """Whether all comparisons of a claim hold."""
    return all(outcome.holds for outcome in outcomes(claim, **values))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("16 / 4 / 2", 2),
        ("2 ** 3 ** 2", 512),
        ("-2 ** 2", -4),
        ("2 ** -1", 0.5),
        ("-(1 + 2)", -3),
        ("ln(1) + log2(8) + sqrt(9) + abs(-4)", 10),
        ("min(3, 1, 2) + max(3, 1, 2)", 4),
        ("1e-5 * 1E5", 1),
        (".5 + 5.", 5.5),
    ],
)
def test_arithmetic_binds_as_in_mathematics(expression: str, value: float) -> None:
    """Powers bind from the right and tighter than a sign, products before sums, from the left."""
    assert holds(f"x == {expression}", x=value)
    assert not holds(f"x == {expression}", x=value + 1)


def test_a_chain_is_each_of_its_links() -> None:
    """`0 <= x < y <= 1` is three comparisons, each with a text of its own."""
    found = outcomes("0 <= x < max(y, 0) <= 1", x=0.5, y=0.4)
    assert [o.text for o in found] == ["0 <= x", "x < max(y, 0)", "max(y, 0) <= 1"]
    assert [o.holds for o in found] == [True, False, True]


def test_every_comparison_is_evaluated_also_after_one_that_fails() -> None:
    """There is no short cut: the reader of the evidence sees all values."""
    found = outcomes("x < 0 and y < 0 and x < 9", x=1.0, y=2.0)
    assert [(o.observed, o.holds) for o in found] == [(1.0, False), (2.0, False), (1.0, True)]


@pytest.mark.parametrize(
    ("claim", "true", "false"),
    [
        ("x in [1, 2.5, -3]", -3, 3),
        ("x in [1, 2]", 1.0, 1.5),
        ("x in ['a', \"b\"]", "b", "ab"),
        ("x in [true]", True, False),
        ("x contains 'b'", "abc", "ABC"),
        ("x matches '^a+$'", "aaa", "aab"),
        ("x == 'a'", "a", "b"),
        ("x == true", True, False),
    ],
)
def test_membership_and_texts(claim: str, true: Any, false: Any) -> None:
    """`in` compares with literals, `contains` is a substring, `matches` a search."""
    assert holds(claim, x=true)
    assert not holds(claim, x=false)


@pytest.mark.parametrize("operator", ["<", "<=", "==", ">=", ">"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "expression",
    ["x", "min(x, 1)", "max(1, x)", "0 * x", "x - x", "1 / x", "abs(x)", "x ** 0", "1 ** x", "-x"],
)
def test_a_value_that_is_not_finite_falsifies_whatever_the_operator(
    operator: str, bad: float, expression: str
) -> None:
    """No function and no arithmetic loses the fault on the way, on either side."""
    assert not holds(f"{expression} {operator} 1", x=bad)
    assert not holds(f"1 {operator} {expression}", x=bad)
    assert not holds(f"{expression} {operator} {expression}", x=bad)


def test_nan_is_no_member_of_anything() -> None:
    """Python's `in` compares identity first, so that a NaN would be in a list that holds it."""
    assert not compare("in", math.nan, [math.nan, 1.0])
    assert not compare("in", 1.0, [1.0, math.nan])
    assert not holds("x in [1]", x=math.inf)


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("ln(x) < 1", 0.0),
        ("ln(x) < 1", -1.0),
        ("log2(x) < 1", 0),
        ("sqrt(x) < 1", -1.0),
        ("1 / x < 1", 0.0),
        ("1 / x < 1", 0),
        ("x ** 0.5 < 1", -2.0),
        ("0 ** x < 1", -1),
        ("10 ** x < 1", 400),
        ("x < 1", "1"),
        ("x < 1", True),
        ("x == 1", True),
        ("x == true", 1),
        ("x + 1 < 3", True),
        ("x contains '1'", 1),
        ("x matches '1'", True),
    ],
)
def test_what_has_no_value_is_broken_and_no_verdict(claim: str, value: Any) -> None:
    """A domain error or a value of another type says nothing about the trainer."""
    with pytest.raises(ClaimBroken):
        outcomes(claim, x=value)


def test_a_measure_that_is_missing_is_broken() -> None:
    """The name stands in the message."""
    with pytest.raises(ClaimBroken, match="y was not measured"):
        outcomes("x < y", x=1)


def test_true_is_not_one() -> None:
    """A boolean never equals a number in a list."""
    assert not holds("x in [1, 0]", x=True)
    assert not compare("in", 1, [True])


def test_huge_powers_end_at_once() -> None:
    """Integers would be computed digit by digit."""
    started = time.perf_counter()
    with pytest.raises(ClaimBroken):
        outcomes("9 ** 9 ** 9 ** 9 > x", x=1)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("claim", "observed", "op", "bound", "slack", "margin"),
    [
        ("x <= 4", 3.0, "<=", 4, 1.0, 0.25),
        ("x <= 2", 4.0, "<=", 2, -2.0, -0.5),
        ("x >= 2", 4.0, ">=", 2, 2.0, 0.5),
        ("4 >= x", 3.0, "<=", 4, 1.0, 0.25),
        ("1 < x", 2.0, ">", 1, 1.0, 0.5),
        ("x == 3", 4, "==", 3, -1, None),
        ("x <= 0", 0.0, "<=", 0, 0.0, 0.0),
        ("x < 2", -2.0, "<", 2, 4.0, 2.0),
    ],
)
def test_slack_is_the_distance_to_the_bound_and_margin_its_share(
    claim: str, observed: float, op: str, bound: float, slack: float, margin: float | None
) -> None:
    """It always reads `observed op bound`; slack is positive when it holds."""
    (found,) = outcomes(claim, x=observed)
    assert (found.observed, found.op, found.bound) == (observed, op, bound)
    assert (found.slack, found.margin, found.unit) == (slack, margin, "m")


def test_a_slack_that_is_not_finite_has_no_margin() -> None:
    """Nothing can be said about how close infinity is."""
    (found,) = outcomes("x <= 1", x=math.inf)
    assert found.slack is not None and math.isnan(found.slack) and found.margin is None


@pytest.mark.parametrize(
    ("claim", "column", "words"),
    [
        ("", 1, "expected a value"),
        ("x", 2, "expected a comparison"),
        ("x < 1 or x > 2", 7, "write two claims"),
        ("not x < 1", 1, "expected a value"),
        ("x < 1 x", 7, "`and` or the end"),
        ("x < ", 5, "expected a value at the end"),
        ("x != 1", 3, "cannot read '!= 1'"),
        ("x < (1", 7, "expected ')'"),
        ("x in []", 7, "expected a value"),
        ("x in [y]", 8, "literals only"),
        ("x in 3", 6, "expected '['"),
        ("x contains y", 12, "quoted text"),
        ("x matches '('", 11, "not a regular expression"),
        ("x matches 'a{99999999999}'", 11, "not a regular expression"),
        ("x < ln(1, 2)", 5, "ln takes 1 argument"),
        ("x < min(1)", 5, "min takes 2 to 8 arguments"),
        ("x < 1e999", 5, "beyond the largest number"),
        ("x < " + "9" * 5000, 5, "beyond the largest number"),
        ("x < exp(1)", 5, "no function 'exp', only ln, log2"),
        ("x.real < 1", 2, "cannot read '.real < 1'"),
        ("x < ٣", 5, "cannot read"),
        ("x < " + "(" * 5000 + "1" + ")" * 5000, 0, "more than 256 words"),
        ("x < " + "(" * 60 + "1" + ")" * 60, 0, "nested deeper than"),
        ("x < " + "-" * 60 + "1", 0, "nested deeper than"),
        ("x < " + "2 ** " * 60 + "1", 0, "nested deeper than"),
    ],
)
def test_what_is_not_of_the_grammar_is_refused_with_its_column(
    claim: str, column: int, words: str
) -> None:
    """The message says what was expected, where. Column 0 here: anywhere."""
    with pytest.raises(ClaimSyntaxError) as refused:
        parse_claim(claim)
    assert words in str(refused.value)
    assert column in (0, refused.value.column)


@pytest.mark.parametrize("text", ["x < true + 1", "x < 'a' * 2", "min(flag, 1) < x", "-word < 1"])
def test_arithmetic_takes_numbers_only(text: str) -> None:
    """The linter finds it before anything runs."""
    kinds = {"x": "number", "flag": "boolean", "word": "text"}
    (comparison,) = parse_claim(text)
    with pytest.raises(ClaimSyntaxError, match="arithmetic on a"):
        for side in (comparison.left, comparison.right):
            assert not isinstance(side, tuple)
            kind_of(side, kinds)


_WORDS = st.sampled_from(
    ["x", "y", "1", "2.5", "1e-5", "1e400", "'a'", "true", "(", ")", "[", "]", ",", "+", "-", "*",
     "/", "**", "<", "<=", "==", ">=", ">", "in", "contains", "matches", "and", "or", "not",
     "ln", "min", "abs", "'('", "'", "\"", "!", "\n", "é"]
)  # fmt: skip
_CLAIMS = st.one_of(st.text(max_size=40), st.lists(_WORDS, max_size=60).map(" ".join))


@settings(max_examples=400, deadline=None)
@given(_CLAIMS)
def test_no_text_gets_past_the_grammar_otherwise(claim: str) -> None:
    """Whatever is written is parsed or refused; what is parsed is evaluated or broken."""
    try:
        comparisons = parse_claim(claim)
    except ClaimSyntaxError:
        return
    for comparison in comparisons:
        try:
            outcome = evaluate(comparison, {"x": 2.0, "y": "a"}, {"x": "", "y": ""})
        except ClaimBroken:
            continue
        bound = outcome.bound
        assert outcome.holds == compare(outcome.op, outcome.observed, bound)
