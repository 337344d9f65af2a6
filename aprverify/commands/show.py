"""``aprverify show ID``: what is claimed under an id, and what was last seen of it."""

from __future__ import annotations

import argparse
import sys
from difflib import get_close_matches
from pathlib import Path

from aprverify.contract.lint import load_suite
from aprverify.evidence import verdict
from aprverify.evidence.describe import describe_contract
from aprverify.evidence.merge import merge_runs
from aprverify.evidence.promote import promoted_runs
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import ContractRecord, Run, contract_from
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.terminal import printable
from aprverify.plan import make_plan
from aprverify.planting import load_defects
from aprverify.source_id import current_source_ids
from aprverify.suite import Suite
from aprverify.views.show import ids_of, render_show


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "show", help="what is claimed under an id, and its last evidence: status, where, margins"
    )
    parser.add_argument("id", metavar="ID", help="contract, gate, invariant or test")
    parser.add_argument(
        "--run",
        dest="path",
        type=Path,
        metavar="RUN",
        help="show what this run says (default: the present contracts and all promoted runs)",
    )
    parser.add_argument(
        "--subject", default="", help="whose evidence (default: the suite's own trainer)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it. Exit status 2 for an unknown id, 7 where a run is refused."""
    suite: Suite = args.suite
    subject = args.subject or suite.default_subject
    try:
        runs = [read_run(args.path)] if args.path else _promoted(suite, subject)
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    current = None if args.path else _current_source_ids(suite, subject)
    contracts = runs[0].contracts if args.path else _declared(suite)
    known = {identity for c in contracts for test in c.tests for identity in ids_of(c, test)}
    if args.id not in known:
        close = get_close_matches(args.id, sorted(known), 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        print(f"aprverify: no contract declares {args.id}{hint}", file=sys.stderr)
        return 2
    print(printable(render_show(args.id, contracts, merge_runs(runs, current))), end="")
    return verdict.OK


def _promoted(suite: Suite, subject: str) -> list[Run]:
    return [run for run in promoted_runs(suite.evidence_dir) if run.header.subject == subject]


def _declared(suite: Suite) -> tuple[ContractRecord, ...]:
    contracts = load_suite(suite).contracts
    return tuple(contract_from(describe_contract(c, suite.root)) for c in contracts)


def _current_source_ids(suite: Suite, subject: str) -> dict[str, str]:
    entries = make_plan(load_suite(suite).contracts, teeth="declared")
    return current_source_ids(suite, entries, suite.subject(subject), load_defects(suite))
