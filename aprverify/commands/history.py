"""``aprverify history ID [RUN…]``: how observed values and margins went from run to run."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path

from aprverify.evidence import verdict
from aprverify.evidence.history import history, known_names
from aprverify.evidence.history_markdown import render_history
from aprverify.evidence.promote import promoted_runs
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.terminal import printable

_USAGE = 2


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "history",
        help="how an observed value and its margin went from run to run",
        description="Exit status 0, 2: no run has the id, 7: a run is refused.",
    )
    parser.add_argument(
        "id", metavar="ID", help="a contract, gate, invariant, test, or an entry's whole key"
    )
    parser.add_argument(
        "paths", metavar="RUN", type=Path, nargs="*", help="runs (default: the committed ones)"
    )
    parser.add_argument("--json", action="store_true", help="for a machine instead of a reader")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the history."""
    try:
        runs = (
            [read_run(path) for path in args.paths]
            if args.paths
            else promoted_runs(args.suite.evidence_dir)
        )
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    series = history(runs, args.id)
    if not series:
        close = get_close_matches(args.id, known_names(runs), 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        print(f"aprverify: no comparison of {args.id} in these runs{hint}", file=sys.stderr)
        return _USAGE
    if args.json:
        print(json.dumps([asdict(one) for one in series], indent=2))
    else:
        print(printable(render_history(args.id, series)), end="")
    return verdict.OK
