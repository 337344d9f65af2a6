"""``aprverify report RUN``: the views of a run, for reviewers and for machines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from aprverify.evidence import verdict
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.report import render_report
from aprverify.evidence.saving import write_text
from aprverify.evidence.terminal import printable
from aprverify.views.annotations import render_annotations
from aprverify.views.beside import REPORT_FILE, files_of_run, pictures, write_files
from aprverify.views.html.page import render as render_html
from aprverify.views.intoto import render_statement
from aprverify.views.job_summary import render_job_summary
from aprverify.views.junit import render_junit

_VIEWS: dict[str, tuple[Callable[[Run], str], str]] = {
    "html": (render_html, "a page that explains every entry, in one file"),
    "junit": (render_junit, "JUnit XML: contract, gates and invariants on every test case"),
    "in_toto": (render_statement, "an in-toto statement (test-result v0.1), to be signed"),
    "job_summary": (render_job_summary, "Markdown for $GITHUB_STEP_SUMMARY, at most 1 MiB"),
}
_TERMINAL = Path("-")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="write the views of a run: report.md, or those that are asked for",
        description=(
            "Write report.md with its pictures beside a run, or, where other views are asked for, "
            "those only. FILE may be - for the terminal. A view says what the run shows and is no "
            "gate: its exit status is 0 also for a run that failed."
        ),
    )
    parser.add_argument("path", metavar="RUN", type=Path, help="a run's folder or its run.jsonl")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the report there, its pictures beside it"
    )
    parser.add_argument(
        "--since",
        type=Path,
        metavar="EARLIER",
        help="an earlier run: the report also says what changed; needs --output, since the report "
        "that is kept beside a run shows that run alone",
    )
    for name, (_, says) in _VIEWS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="FILE", help=says)
    parser.add_argument(
        "--annotations",
        action="store_true",
        help="print ::error commands of GitHub, each at its contract's line",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write what was asked for and say where. Exit status 7 where a run is refused."""
    if args.since and not args.output:
        print("aprverify: --since needs --output FILE (- for the terminal)", file=sys.stderr)
        return 2
    try:
        found = read_run(args.path)
        earlier = read_run(args.since) if args.since else None
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    wanted = [name for name in _VIEWS if getattr(args, name)]
    for name in wanted:
        _write(getattr(args, name), _VIEWS[name][0](found))
    if args.annotations:
        print(printable(render_annotations(found)), end="")
    if args.output:
        _write(args.output, render_report(found, earlier))
        if args.output != _TERMINAL:
            write_files(args.output.parent, pictures(found))
    elif not wanted and not args.annotations:
        folder = found.path.parent
        write_files(folder, files_of_run(found))
        print(folder / REPORT_FILE)
    return verdict.OK


def _write(output: Path, text: str) -> None:
    if output == _TERMINAL:
        print(printable(text), end="")
    else:
        write_text(output, text)
        print(output, file=sys.stderr)
