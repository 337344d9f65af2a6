"""A toy suite with a test on two devices, and the gate as a function of its arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import yaml

from aprverify import source_id
from aprverify.commands import gate, merge
from tests.conftest import Toy, contract, falsification

CPU_KEY = "FALSIFY-TOY-001[device=cpu]"
CUDA_KEY = "FALSIFY-TOY-001[device=cuda]"
TEETH_KEY = "FALSIFY-TOY-001[device=cpu]!one-more"
GATE = "GATE-TOY-001"
Call = Callable[..., int]


def declare(toy: Toy, **changes: Any) -> None:
    """The toy contract with its test on the CPU and on CUDA, and `changes` of the test."""
    cases = [{"scale": "full", "matrix": {"device": ["cpu", "cuda"]}}]
    test = falsification(
        "FALSIFY-TOY-001",
        "falsify_toy.falsify_sum",
        **{"invariants": ["INV-TOY-001"], "cases": cases, **changes},
    )
    toy.contract(contract(falsification_tests=[test]))
    forget_files()


def second_contract(toy: Toy, *, ship_blocking: bool = True) -> None:
    """A contract C-TWO with a gate GATE-TWO over FALSIFY-TWO, on the CPU."""
    body = contract(
        "C-TWO",
        invariants=[{"id": "INV-TWO", "rule": "sums add up"}],
        gates=[
            {
                "id": "GATE-TWO",
                "rule": "sums add up",
                "binds": ["INV-TWO"],
                "ship_blocking": ship_blocking,
            }
        ],
        falsification_tests=[
            falsification("FALSIFY-TWO", "falsify_toy.falsify_sum", invariants=["INV-TWO"])
        ],
    )
    toy.contract(body, "two.yaml")
    forget_files()


def policy(toy: Toy, **body: Any) -> None:
    """The policy file of the checkout."""
    text = yaml.safe_dump({"policy": "aprverify-policy/1", **body}, sort_keys=False)
    toy.write({"gate-policy.yaml": text})


def forget_files() -> None:
    """Let files be hashed anew: a process remembers them, and a test edits them."""
    for function in vars(source_id).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


@pytest.fixture
def declared(importable: Toy) -> Toy:
    """The toy suite, its test on two devices."""
    declare(importable)
    return importable


def command(module: Any, name: str, suite: Any, arguments: Sequence[object]) -> int:
    """Run one subcommand; its exit code."""
    parser = argparse.ArgumentParser()
    module.add_parser(parser.add_subparsers())
    options = parser.parse_args([name, *map(str, arguments)])
    options.suite = suite
    return int(options.run(options))


@pytest.fixture
def judge(declared: Toy) -> Call:
    """``aprverify gate`` with some arguments."""
    return lambda *arguments: command(gate, "gate", declared.suite, arguments)


@pytest.fixture
def join(declared: Toy) -> Call:
    """``aprverify merge`` with some arguments."""
    return lambda *arguments: command(merge, "merge", declared.suite, arguments)
