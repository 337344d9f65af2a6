"""``aprverify check RUN``: is this run evidence, and what does it show?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aprverify.evidence import verdict
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.summary import render_summary
from aprverify.trust.trusted import TRUSTED_FILE, read_trusted
from aprverify.trust.verify import signature_words
from aprverify.views.beside import REPORT_FILE, differing, files_of_run


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("check", help="read a run with distrust and say what it shows")
    parser.add_argument("path", metavar="RUN", type=Path, help="a run's folder or its run.jsonl")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the summary; the exit status is the run's own, or 7 where it is refused."""
    try:
        found = read_run(args.path)
        signed = signature_words(found, read_trusted(args.suite.root / TRUSTED_FILE))
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    print(f"Signature: {signed}.\n")
    print(render_summary(found, colour=sys.stdout.isatty()), end="")
    if found.path.with_name(REPORT_FILE).exists():
        wrong = differing(found.path.parent, files_of_run(found))
        for file in wrong:
            print(
                f"{file}: not what this run shows: it was edited by hand, or rendered by another "
                f"version. `aprverify report {args.path}` writes it anew.",
                file=sys.stderr,
            )
        if wrong:
            return verdict.REFUSED
    return verdict.exit_code(found, found.header.require)
