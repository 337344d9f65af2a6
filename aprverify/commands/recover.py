"""``aprverify recover DIR --out NEW``: what a verify that was killed had found by then."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aprverify.contract.lint import load_suite
from aprverify.evidence import verdict
from aprverify.evidence.join import join_lanes
from aprverify.evidence.reader import RUN_FILE, read_run, read_unfinished
from aprverify.evidence.records import Run
from aprverify.evidence.refusals import DamagedLine, EvidenceRefused, NoFooter
from aprverify.evidence.summary import render_summary
from aprverify.plugin.state import state_of_worker
from aprverify.suite import Suite
from aprverify.unfinished import NotTheSameFiles, close_unfinished
from aprverify.views.beside import REPORT_FILE, files_of_run, write_files

_USAGE = 2
_EXIT_CODES = """\
exit codes: those of verify for what had run; 2 usage, or the run is of other files than those here;
4 a file could not be written; 7 a line is not as it was written"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "recover",
        help="close the run of a verify that was killed",
        description="Write a run from the lanes that a killed verify left: each row as it was "
        "written, each entry without one as not run, and a footer that says that it was "
        "interrupted. Works in the checkout that was tested; DIR stays as it is.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="what verify left: lane-*/run.jsonl"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="NEW", help="new folder; its name is the run id"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Recover; returns one of the exit codes above."""
    folder, out = args.folder.resolve(), args.out.resolve()
    lanes = sorted(folder.glob(f"lane-*/{RUN_FILE}"))
    if not lanes or out.exists():
        what = (
            f"{out} exists; name a new folder" if lanes else f"{folder} holds no lane-*/{RUN_FILE}"
        )
        print(f"aprverify: {what}", file=sys.stderr)
        return _USAGE
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".recovering-") as scratch:
            inside = Path(scratch) / out.name
            runs = list(_closed(lanes, args.suite, Path(scratch)))
            command = ["aprverify", "recover", *map(_name, lanes)]
            join_lanes(runs, inside, command, whole=_covers(runs, args.suite))
            joined = read_run(inside)
            write_files(inside, files_of_run(joined))
            shutil.move(inside, out)
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    except NotTheSameFiles as reason:
        print(f"aprverify: {folder}: {reason}", file=sys.stderr)
        return _USAGE
    print(render_summary(joined, colour=sys.stdout.isatty()), end="")
    print(f"report: {out / REPORT_FILE}")
    return verdict.exit_code(joined, list(joined.header.require))


def _closed(lanes: list[Path], suite: Suite, scratch: Path) -> Iterator[Run]:
    """The run of each lane, from a copy, since joining removes what it has joined."""
    for lane in lanes:
        target = scratch / lane.parent.name / RUN_FILE
        try:
            read_run(lane)
            target.parent.mkdir()
            shutil.copyfile(lane, target)
        except (NoFooter, DamagedLine):
            lines = read_unfinished(lane)
            subject = next((line["subject"] for line in lines), "")
            missing = close_unfinished(lines, state_of_worker(suite.name, subject, ()), target)
            print(f"{lane.parent.name}: killed, with {missing} entries to go", file=sys.stderr)
        yield read_run(target)


def _covers(runs: list[Run], suite: Suite) -> bool:
    """Whether no lane is missing: a killed verify may not have begun the last one."""
    tests = (test for contract in load_suite(suite).contracts for test in contract.tests)
    begun = {run.header.selection.lane for run in runs}
    return "all" in begun or begun >= {case.lane for test in tests for case in test.cases}


def _name(lane: Path) -> str:
    """What was recovered, by its bytes."""
    return f"{lane.parent.name}@sha256:{hashlib.sha256(lane.read_bytes()).hexdigest()}"
