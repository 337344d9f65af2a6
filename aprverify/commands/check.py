"""``aprverify check RUN``: is this run evidence, and what does it show?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aprverify.evidence import verdict
from aprverify.evidence.promote import REPORT_FILE, report_is_true
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.summary import render_summary


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("check", help="read a run with distrust and say what it shows")
    parser.add_argument("path", metavar="RUN", type=Path, help="a run's folder or its run.jsonl")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the summary; the exit status is the run's own, or 7 where it is refused."""
    try:
        found = read_run(args.path)
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    print(render_summary(found, colour=sys.stdout.isatty()), end="")
    report = found.path.with_name(REPORT_FILE)
    if report.exists() and not report_is_true(found):
        print(
            f"{report}: not the report of this run: it was edited by hand, or rendered by another "
            f"version. `aprverify report {args.path}` writes it anew.",
            file=sys.stderr,
        )
        return verdict.REFUSED
    return verdict.exit_code(found, found.header.require)
