"""``aprverify tolerances RUN…``: is each between the noise and the smallest planted effect?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from aprverify.campaign.results import read_campaign
from aprverify.evidence import verdict
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.saving import write_text
from aprverify.evidence.tolerances import trials_of
from aprverify.evidence.tolerances_markdown import render_tolerances


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "tolerances",
        help="put every tolerance on trial: noise below it, planted effects above it",
        description="Of every tolerance the worst clean value, the smallest planted effect and the "
        "two margins. Exit status 0, whatever the page says; 7: a run or a campaign is refused.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="runs with their teeth")
    parser.add_argument(
        "--campaign", nargs="+", default=[], metavar="DIR", type=Path, help="campaigns to add"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write here instead of printing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print or write the page."""
    try:
        runs = [read_run(path) for path in args.runs]
        campaigns = [read_campaign(path) for path in args.campaign]
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    trials = trials_of(runs, campaigns)
    page = render_tolerances(trials, runs, campaigns)
    if args.out is None:
        print(page, end="")
    else:
        write_text(args.out, page)
    return verdict.OK
