"""What claims are tried on: the same in every process, with its edges, and nothing left behind."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import strategies as st

from aprverify.contract.lint import Loaded
from falsifiers.drawn_inputs import TooFewExamples, examples, integers, powers_of_ten, widths

ROOT = Path(__file__).resolve().parents[2]
PLAIN = """
from hypothesis import strategies as st
from falsifiers.drawn_inputs import examples, integers, powers_of_ten, widths
kinds = st.tuples(widths(1), powers_of_ten(-6, 6), st.floats(-6, 6), st.permutations("abcd"))
print([examples(kinds, 32, seed) for seed in (0, 1, 2**20 + 5)])
"""
"""Floats and permutations too, in which hypothesis' engine uses constants that it met."""


def _printed(code: str, folder: Path, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_examples_do_not_depend_on_what_else_a_process_does(tmp_path: Path) -> None:
    """Modules full of constants, drawing before, another hash seed and CI change none of them."""
    module = "\n".join(f"A{n} = {n}; B{n} = {n / 64}" for n in range(300))
    (tmp_path / "full_of_constants.py").write_text(module)
    before = "import full_of_constants, falsifiers.subject, json, random\nrandom.seed(7)\n"
    drawing = "examples(st.lists(st.integers()), 50, 9)\n"
    imports, _, rest = PLAIN.partition("kinds =")
    busy = f"{before}{imports}{drawing}kinds ={rest}"
    plain = _printed(PLAIN, tmp_path, PYTHONHASHSEED="1")
    assert len(plain) > 1000
    assert plain == _printed(busy, tmp_path, PYTHONHASHSEED="2", CI="true")


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """No database and no collection of constants, which would make one run depend on another."""
    _printed(PLAIN, tmp_path, PYTHONDONTWRITEBYTECODE="1")
    assert list(tmp_path.iterdir()) == []


def test_examples_are_those_that_evidence_was_made_with() -> None:
    """Another version of hypothesis or Python that draws others makes other claims: then all is
    to be measured anew, and these numbers written again."""
    assert examples(widths(1), 10, 0) == [191, 128, 248, 245, 251, 28, 207, 1, 240, 49]
    steps = [-121, 129, 94, 40]
    powers = [10.0 ** (step / 64) for step in steps]
    assert examples(powers_of_ten(-6, 6), 4, 0) == pytest.approx(powers, rel=1e-12)


def test_what_is_always_tried_comes_first_and_seeds_differ() -> None:
    """Ends are where faults are, whatever the seed."""
    found = [examples(widths(1), 8, seed, always=[1, 257]) for seed in range(3)]
    assert all(len(one) == 8 and one[:2] == [1, 257] for one in found)
    assert len({tuple(one) for one in found}) == 3


def test_edges_are_members_and_the_rest_is_not_forgotten() -> None:
    """Half of the numbers are an edge, the others any between the ends."""
    drawn = examples(integers(0, 1000, (500, 2000)), 200, 0)
    assert all(0 <= n <= 1000 for n in drawn)
    assert {0, 500, 1000} < set(drawn)
    assert 70 < sum(n in (0, 500, 1000) for n in drawn) < 130


def test_powers_of_ten_cover_every_decade() -> None:
    """Log-uniform: sizes near one are no likelier than others."""
    drawn = examples(powers_of_ten(-3, 3), 300, 0)
    assert all(1e-3 <= x <= 1e3 for x in drawn)
    for low in range(-3, 3):
        assert 25 < sum(10.0**low <= x < 10.0 ** (low + 1) for x in drawn) < 80


def test_drawing_leaves_every_generator_as_it_was() -> None:
    """A falsifier that asks whether a trainer touches one must not be fooled by its own inputs."""

    def states() -> tuple[object, ...]:
        numbers = numpy.random.get_state()[1]
        return random.getstate(), bytes(numbers), bytes(torch.get_rng_state().numpy())

    before = states()
    examples(st.permutations("abc"), 20, 0)
    assert states() == before


def test_a_strategy_that_refuses_nearly_all_is_an_error_and_not_a_short_list() -> None:
    """A claim on fewer inputs than were asked for would still hold."""
    with pytest.raises(TooFewExamples, match="0 of 3 examples in 30 draws"):
        examples(st.integers(0, 9).filter(lambda n: n > 9), 3, 0)


def test_who_draws_requires_the_package(loaded: Loaded) -> None:
    """Without hypothesis its cases are not run, and say which package is missing."""
    drawing = set()
    for path in (ROOT / "falsifiers").glob("falsify_*.py"):
        drawing |= {f"{path.stem}.{name}" for name in _drawing_functions(path)}
    tests = [test for contract in loaded.contracts for test in contract.tests]
    requiring = {
        f"{test.module}.{test.function}"
        for test in tests
        if all("package:hypothesis" in case.requires for case in test.cases)
    }
    assert drawing and drawing == requiring


def _drawing_functions(path: Path) -> set[str]:
    """The falsifiers of a module that draw, themselves or through a function beside them."""
    functions = [n for n in ast.parse(path.read_bytes()).body if isinstance(n, ast.FunctionDef)]
    drawing: set[str] = set()
    while True:
        marks = {"falsifiers.drawn_inputs", *drawing}
        found = {f.name for f in functions if marks & set(_names(f))}
        if found == drawing:
            return {name for name in drawing if name.startswith("falsify_")}
        drawing = found


def _names(function: ast.FunctionDef) -> list[str]:
    return [
        str(node.module if isinstance(node, ast.ImportFrom) else node.id)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom | ast.Name)
    ]
