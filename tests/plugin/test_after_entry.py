"""What a suite does after each entry: in the worker, after the fixtures, whatever the outcome."""

from __future__ import annotations

from ..conftest import Toy, contract, falsification

_GIVEN_BACK = """\
from pathlib import Path

def give_back():
    with (Path(__file__).parent / "given-back").open("a") as file:
        file.write("after\\n")
"""
_FALSIFIER = """\
from pathlib import Path
import pytest

@pytest.fixture
def held_memory():
    yield
    with (Path(__file__).parent / "given-back").open("a") as file:
        file.write("fixture\\n")

def falsify_sum(subject, measured, held_memory):
    measured(x=subject.total([1, 2]))

def falsify_crash(subject, measured, held_memory):
    raise ZeroDivisionError
"""


def test_the_suite_gives_back_after_each_entry(toy: Toy) -> None:
    """A claim and its two defects, held or broken: each time, and last."""
    toy.write({"toysuite/memory.py": _GIVEN_BACK, "toysuite/falsify_toy.py": _FALSIFIER})
    suite = toy.root / "toysuite/suite.py"
    named = 'on_plant="", after_entry="toysuite.memory:give_back",'
    suite.write_text(suite.read_text().replace('on_plant="",', named))
    tests = [
        falsification(
            "FALSIFY-TOY-001.held",
            "falsify_toy.falsify_sum",
            counter_examples=[{"defect": "one-more"}, {"defect": "one-less"}],
        ),
        falsification("FALSIFY-TOY-001.crashed", "falsify_toy.falsify_crash"),
    ]
    toy.contract(contract(falsification_tests=tests, invariants=[], gates=[]))
    toy.record("--teeth", "declared")
    lines = (toy.root / "toysuite/given-back").read_text().split()
    assert lines == ["fixture", "after"] * 6
