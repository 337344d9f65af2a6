"""``aprverify verify``: run every claim and its planted defects, and leave a run with its report.

The work is done by pytest in processes of its own: one session where there is no GPU, else one
session a lane, the CPU lane with a worker a core and the CUDA lane with a pinned worker a GPU. Their
rows become one run. The verdict comes from the rows, not from pytest's exit status.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

from aprverify.contract.lint import load_suite
from aprverify.evidence import verdict
from aprverify.evidence.join import join_lanes
from aprverify.evidence.promote import REPORT_FILE
from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.report import render_report
from aprverify.evidence.summary import render_summary
from aprverify.gpus import visible_gpus
from aprverify.suite import Suite

_LINT_FAILED = 2


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "verify",
        help="run every claim and its planted defects; ends with a table",
        description=__doc__,
        epilog="exit codes: 0 nothing is FALSIFIED, VACUOUS or BROKEN; 1 falsified; 2 the contracts "
        "have problems; 3 vacuous; 4 broken; 5 required entries did not run; 6 nothing ran; "
        "130 stopped",
    )
    add = parser.add_argument
    add("--require", action="append", default=[], choices=["cuda"], metavar="DEVICE",
        help="fail if anything did not run: the gate on a machine with that device (cuda)")
    add("--subject", default="", help="trainer under test: a short name or MODULE:ATTRIBUTE")
    add("--asset", action="append", default=[], metavar="NAME=FILE", help="use this file")
    add("--teeth", choices=["declared", "none"], default="declared",
        help="plant the declared defects (default), or none: then no gate is discharged")
    add("--run-dir", type=Path, metavar="DIR", help="new folder for the run (default: evidence/local/…)")
    add("-k", dest="keyword", default="", metavar="EXPRESSION", help="only entries that match")
    add("-n", dest="workers", default="auto", metavar="N", help="workers (default: auto)")
    parser.set_defaults(run=run)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Lint, run the lanes, join them, report. Returns a code of `aprverify.evidence.verdict`."""
    suite: Suite = args.suite
    problems = load_suite(suite).problems
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        print(f"aprverify: {len(problems)} problems; nothing was run", file=sys.stderr)
        return _LINT_FAILED
    folder = (args.run_dir or suite.evidence_dir / "local" / _run_id()).resolve()
    if folder.exists():
        print(f"aprverify: {folder} exists; name a new folder", file=sys.stderr)
        return _LINT_FAILED
    lanes = ["cuda", "cpu"] if visible_gpus() else ["all"]
    _run_lanes({lane: _session(args, lane, folder / f"lane-{lane}") for lane in lanes}, folder)
    folders = [folder / f"lane-{lane}" for lane in lanes]
    return _conclude(folder, [f for f in folders if (f / RUN_FILE).exists()], args)


def _run_id() -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.strftime("%Y%m%dT%H%M%SZ")


def _run_lanes(sessions: dict[str, list[str]], folder: Path) -> None:
    """Run all sessions side by side. The first prints as it goes, the others when they are done."""
    folder.mkdir(parents=True)
    running = {}
    for lane, command in sessions.items():
        stream = (folder / f"{lane}.log").open("w") if running else None
        running[lane] = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        for lane, process in running.items():
            process.wait()
            log = folder / f"{lane}.log"
            if log.exists():
                print(f"\n-- {lane} lane --\n{log.read_text()}", end="", flush=True)
    except KeyboardInterrupt:
        for process in running.values():
            process.wait()  # they got the same signal, and are closing their runs


def _session(args: argparse.Namespace, lane: str, folder: Path) -> list[str]:
    """The pytest command of one lane."""
    suite: Suite = args.suite
    command = [
        sys.executable, "-m", "pytest", str(suite.falsifiers_dir),
        "-o", f"aprverify_suite={suite.name}", "-o", "python_files=falsify_*.py",
        "-o", "python_functions=falsify_*", f"--rootdir={suite.root}", "--import-mode=importlib", "-p", "no:cacheprovider",
        "-n", args.workers, "--dist", "loadgroup", "-q", "--no-header", "--tb=short",
        "--continue-on-collection-errors", "--lane", lane, "--teeth", args.teeth,
        "--evidence", str(folder), "--subject", args.subject,
    ]  # fmt: skip
    command += [part for asset in args.asset for part in ("--asset", asset)]
    command += [part for device in args.require for part in ("--require", device)]
    command += ["-k", args.keyword] if args.keyword else []
    return command


def _conclude(folder: Path, lanes: list[Path], args: argparse.Namespace) -> int:
    if not lanes:
        print("aprverify: no lane left a run; the output above says why", file=sys.stderr)
        return verdict.NOTHING_RAN
    try:
        join_lanes([read_run(lane) for lane in lanes], folder, _command(args))
        joined = read_run(folder)
    except EvidenceRefused as refusal:
        print(f"aprverify: the run is refused: {refusal}", file=sys.stderr)
        return verdict.REFUSED
    (folder / REPORT_FILE).write_text(render_report(joined), encoding="utf-8")
    print()
    print(render_summary(joined, colour=sys.stdout.isatty()), end="")
    print(f"report: {folder / REPORT_FILE}")
    return verdict.exit_code(joined, args.require)


def _command(args: argparse.Namespace) -> list[str]:
    command = ["aprverify", "verify", "--teeth", args.teeth]
    command += [part for device in args.require for part in ("--require", device)]
    # Only the name: the path says nothing to a reader elsewhere, and evidence holds no local paths.
    command += [p for a in args.asset for p in ("--asset", f"{a.partition('=')[0]}=…")]
    command += ["--subject", args.subject] if args.subject else []
    command += ["-k", args.keyword] if args.keyword else []
    return command
