"""``aprverify report RUN``: the Markdown view of a run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aprverify.evidence import verdict
from aprverify.evidence.promote import REPORT_FILE
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.report import render_report
from aprverify.evidence.saving import write_text


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("report", help="write a run's report.md")
    parser.add_argument("path", metavar="RUN", type=Path, help="a run's folder or its run.jsonl")
    parser.add_argument(
        "--output", type=Path, help="where to write; - for the terminal (default: beside the run)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report and say where. Exit status 7 where the run is refused."""
    try:
        found = read_run(args.path)
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    text = render_report(found)
    if args.output == Path("-"):
        print(text, end="")
        return verdict.OK
    output = args.output or found.path.with_name(REPORT_FILE)
    write_text(output, text)
    print(output)
    return verdict.OK
