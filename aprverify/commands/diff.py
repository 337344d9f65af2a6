"""``aprverify diff RUN_A RUN_B``: what became worse, better or other between two runs."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from aprverify.evidence import verdict
from aprverify.evidence.changes import changes_between
from aprverify.evidence.changes_markdown import render_changes
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.terminal import printable

_WORSE = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "diff",
        help="what is new, fixed, still failing or gone between two runs",
        description="Compare two runs. Exit status 0: nothing became worse; 1: something fails "
        "that did not, or is no longer shown; 7: one of the runs is refused. Values that moved, "
        "other bounds and other machines are told, and change nothing in the exit status.",
    )
    parser.add_argument("before", metavar="RUN_A", type=Path, help="the earlier run")
    parser.add_argument("after", metavar="RUN_B", type=Path, help="the later run")
    parser.add_argument("--json", action="store_true", help="for a machine instead of a reader")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the difference."""
    try:
        before, after = read_run(args.before), read_run(args.after)
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    found = changes_between(before, after)
    if args.json:
        names = {"before": before.header.run_id, "after": after.header.run_id}
        body = {**names, "worse": found.worse, **asdict(found)}
        print(json.dumps(body, indent=2, allow_nan=False))
    else:
        print(printable(render_changes(before, after, found)), end="")
    return _WORSE if found.worse else verdict.OK
