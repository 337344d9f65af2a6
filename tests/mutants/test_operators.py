"""What is done to source, change by change."""

from __future__ import annotations

from aprverify.mutants.operators import changed, spots


def _after(source: str, operator: str) -> list[str]:
    found = (changed(source, s) for s in spots(source) if s.operator.startswith(operator))
    return [text for text in found if text is not None]


def test_statements_are_dropped_where_the_rest_can_still_run() -> None:
    """A name that is bound once stays: without it anything would fail."""
    source = "def f(x):\n    y = x\n    x.add_(1)\n    y += 1\n    x.a = y\n    return y\n"
    dropped = _after(source, "DropStatement")
    lines = [set(source.splitlines()) - set(text.splitlines()) for text in dropped]
    assert lines == [{"    x.add_(1)"}, {"    y += 1"}, {"    x.a = y"}]


def test_arguments_fall_back_to_their_defaults() -> None:
    """The comma goes with them."""
    assert _after("f(a, b=1, c=2)\n", "DropArgument") == ["f(a,  c=2)\n", "f(a, b=1, )\n"]


def test_calls_on_a_value_are_dropped_and_calls_of_a_module_are_not() -> None:
    """``math`` for ``math.sqrt(x)`` would fail at once, and say nothing about any claim."""
    source = "import math\nmath.sqrt(x.detach().float())\n"
    assert _after(source, "DropCall") == [
        "import math\nmath.sqrt(x.detach())\n",
        "import math\nmath.sqrt(x.float())\n",
    ]


def test_names_are_taken_for_their_neighbours() -> None:
    """In attributes and in plain names, in a circle, and never where a name is bound."""
    assert _after("y = x.sum()\n", "TakeNeighbour") == ["y = x.mean()\n"]
    assert _after("y = min(x)\n", "TakeNeighbour") == ["y = max(x)\n"]
    assert _after("sum = 1\n", "TakeNeighbour") == []
    dtypes = "torch.float32, torch.float64, torch.bfloat16\n"
    assert len(_after(dtypes, "TakeNeighbour")) == 3


def test_cosmic_ray_changes_operators_numbers_and_comparisons() -> None:
    """Its operators are in use, each alternative a mutant of its own."""
    assert "a - b\n" in _after("a + b\n", "ReplaceBinaryOperator")
    assert len(_after("x = 2\n", "NumberReplacer")) == 2
    assert "a <= b\n" in _after("a < b\n", "ReplaceComparisonOperator")


def test_what_is_no_python_or_the_same_program_is_no_mutant() -> None:
    """A cast that is written twice is the same once it is dropped by its text only."""
    source = "def f(*, a):\n    return a\n"
    assert all(text != source for text in _after(source, ""))
    assert [s for s in spots("{**a}\n") if changed("{**a}\n", s) == "{/a}\n"] == []


def test_columns_are_counted_in_characters() -> None:
    """A change behind an umlaut hits what it should."""
    assert _after('f("ä", x.float())\n', "DropCall") == ['f("ä", x)\n']


def test_exceptions_with_dots_are_passed_over() -> None:
    """The library offers the change and fails at it; a plain name it can change."""
    plain = "try:\n    f()\nexcept OSError:\n    pass\n"
    assert len(_after(plain, "ExceptionReplacer")) == 1
    assert _after(plain.replace("OSError", "a.Error"), "ExceptionReplacer") == []
