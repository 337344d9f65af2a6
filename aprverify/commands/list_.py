"""``aprverify list``: what is claimed, by which falsifier, over which cases."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from aprverify.contract.lint import load_suite
from aprverify.contract.model import Contract, FalsificationTest


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("list", help="list contracts and tests, or show some by id")
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="contract, gate, invariant or test: show it in full"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the overview, or each id in full; 2 for an unknown id."""
    loaded = load_suite(args.suite)
    contracts = loaded.contracts
    if loaded.problems:
        missing = "whatever has a problem may be missing here; see `aprverify lint`"
        print(f"aprverify: {len(loaded.problems)} problems: {missing}", file=sys.stderr)
    if not args.ids:
        for contract in contracts:
            _overview(contract)
        return 0
    for identity in args.ids:
        found = [(c, t) for c in contracts for t in c.tests if identity in _ids(c, t)]
        if not found:
            known = {i for c in contracts for t in c.tests for i in _ids(c, t)}
            close = get_close_matches(identity, known, 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            print(f"aprverify: no contract declares {identity}{hint}", file=sys.stderr)
            return 2
        for contract, test in found:
            _show(contract, test)
    return 0


def _ids(contract: Contract, test: FalsificationTest) -> set[str]:
    gates = {gate.id for gate in contract.gates_of(test)}
    return {contract.id, test.id, test.family, *test.invariants} | gates


def _overview(contract: Contract) -> None:
    print(f"\n{contract.id} {contract.version}  {contract.title}")
    for test in contract.tests:
        devices = "/".join(_distinct(str(case.device) for case in test.cases))
        size = f"{len(test.cases)} cases on {devices}, {len(test.counter_examples)} defects"
        print(f"  {test.id:<58} {size}")


def _show(contract: Contract, test: FalsificationTest) -> None:
    print(f"\n{test.id}  ({contract.id}, {contract.path.name}:{test.line})")
    print(f"  rule            {test.rule}")
    print(f"  falsifier       {test.falsifier}")
    bound = [*test.invariants, *(gate.id for gate in contract.gates_of(test))]
    print(f"  invariants      {', '.join(bound) or 'none'}")
    for claim in test.claims:
        print(f"  claim           {claim.id}: {claim.expr}")
    for name, values in test.tolerances.items():
        print(f"  tolerance       {name}: " + ", ".join(f"{d} {v:g}" for d, v in values.items()))
    for case in test.cases:
        print(f"  case ({case.scale:<7})  {case.id}")
    defects = ", ".join(example.defect for example in test.counter_examples)
    print(f"  must catch      {defects}")
    print(f"  if it fails     {test.if_fails}")
    print(f"  run             pytest -k {test.id}")


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
