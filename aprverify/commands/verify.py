"""``aprverify verify``: run every claim and its planted defects, and leave a run with its report.

The work is done by pytest in processes of its own: one session where there is no GPU, else one
session a lane, side by side, the CUDA lane with pinned workers. What times a GPU, or takes several,
comes last and alone. Their rows become one run.
The verdict comes from the rows, not from pytest's exit status.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aprverify.contract.lint import Loaded, load_suite
from aprverify.contract.model import GPUS_ALONE
from aprverify.evidence import verdict
from aprverify.evidence.join import join_lanes
from aprverify.evidence.markdown import count
from aprverify.evidence.promote import promoted_runs
from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.records import Run, TooDear
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.summary import render_summary
from aprverify.evidence.terminal import printable
from aprverify.gpus import visible_gpus
from aprverify.localizing.failures import Limits, falsified, localized, workers
from aprverify.plan import make_plan
from aprverify.sessions import session_environment, session_options
from aprverify.stopping import Terminated, stopping_at_sigterm
from aprverify.suite import Suite, SuiteError
from aprverify.too_dear import TOO_DEAR_FILE, DearEntries, dear_entries
from aprverify.views.beside import REPORT_FILE, files_of_run, write_files

_USAGE = 2
_LANE = "lane-"
"""Begins the name of a lane's folder."""
_STOPPED, _NOTHING_SELECTED = 2, 5
"""pytest's own statuses of a session that was interrupted, and where no item was selected."""
_ALL_ROUNDS = [["cuda", "cpu"], [GPUS_ALONE]]
_EXIT_CODES = """\
exit codes: 0 nothing is FALSIFIED, VACUOUS or BROKEN; 1 falsified; 2 usage, or the contracts have
problems; 3 vacuous; 4 broken, or a file could not be written; 5 required entries did not run;
6 nothing reached a verdict; 7 the run is refused as evidence; 130 stopped, by Ctrl-C or SIGTERM:
what ran until then is kept, with its report"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "verify",
        help="run every claim and its planted defects; ends with a table",
        description="Run every claim and its planted defects, and leave a run with its report.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        choices=["cuda", GPUS_ALONE],
        metavar="DEVICE",
        help="fail if anything did not run: the gate on a machine with that device: cuda, or gpus "
        "where there are enough for claims about several",
    )
    parser.add_argument(
        "--subject", default="", help="trainer under test: a short name or MODULE:ATTRIBUTE"
    )
    parser.add_argument(
        "--asset", action="append", default=[], metavar="NAME=FILE", help="use this file"
    )
    parser.add_argument(
        "--teeth",
        choices=["declared", "none"],
        default="declared",
        help="plant the declared defects (default), or none: then no gate is discharged",
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="new folder (default: evidence/local/TIME)"
    )
    parser.add_argument(
        "-k", dest="keyword", default="", metavar="EXPRESSION", help="only entries that match"
    )
    parser.add_argument(
        "--lane",
        action="append",
        default=[],
        choices=["cpu", "cuda", GPUS_ALONE],
        help="only what runs there, with all cores for it; gpus: what times a GPU or takes several "
        "(default: every lane of the machine)",
    )
    parser.add_argument(
        "--dearest",
        type=_positive_seconds,
        metavar="SECONDS",
        help="leave out what took longer in committed runs, and defects planted under it; the "
        "report counts them",
    )
    parser.add_argument(
        "-n", dest="workers", default="auto", metavar="N", help="workers a lane (default: auto)"
    )
    parser.add_argument(
        "--localize",
        type=_seconds,
        default=Limits.seconds,
        metavar="SECONDS",
        help="time for naming what is first at fault in falsified claims, once all verdicts are "
        "written (default: %(default)g; 0: not at all)",
    )
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 0")
    return value


def _positive_seconds(text: str) -> float:
    if not _seconds(text):
        raise argparse.ArgumentTypeError(f"{text} leaves everything out")
    return float(text)


def run(args: argparse.Namespace) -> int:
    """Lint, run the lanes, join them, report. Returns a code of `aprverify.evidence.verdict`."""
    with stopping_at_sigterm():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    suite: Suite = args.suite
    if args.subject:
        _check_subject(suite, args.subject)
    loaded = load_suite(suite)
    if loaded.problems:
        print(*loaded.problems, sep="\n", file=sys.stderr)
        print(f"aprverify: {len(loaded.problems)} problems; nothing was run", file=sys.stderr)
        return _USAGE
    folder = (args.run_dir or suite.evidence_dir / "local" / _run_id()).resolve()
    if folder.exists():
        print(f"aprverify: {folder} exists; name a new folder", file=sys.stderr)
        return _USAGE
    try:
        dear = _dear_entries(suite, args.dearest)
    except EvidenceRefused as refusal:
        print(f"aprverify: --dearest: a committed run is refused: {refusal}", file=sys.stderr)
        return verdict.REFUSED
    folder.mkdir(parents=True)
    if dear:
        dear.write(folder / TOO_DEAR_FILE)
    statuses, whole = _run_rounds(args, _rounds(args, loaded), folder)
    (folder / TOO_DEAR_FILE).unlink(missing_ok=True)
    finished = [f for f in statuses if (f / RUN_FILE).exists()]
    if set(statuses.values()) == {_NOTHING_SELECTED} and not finished:
        shutil.rmtree(folder)
        print(f"aprverify: no entry is left of {_asked_for(args)}", file=sys.stderr)
        return _USAGE
    # A selection may leave one lane with nothing to do; any other lane without a run has failed.
    silent = [status for f, status in statuses.items() if f not in finished]
    stopped = _STOPPED in statuses.values()
    if not finished or any(status not in (_NOTHING_SELECTED, _STOPPED) for status in silent):
        print("aprverify: a lane left no run; the output above says why", file=sys.stderr)
        if not finished:
            shutil.rmtree(folder)
        return verdict.INTERRUPTED if stopped else _USAGE
    # A lane that was stopped before it had its plan is like one that was never begun.
    whole = whole and _STOPPED not in silent and len(set(args.lane)) in (0, 1, 3)
    idle = [f.name.removeprefix(_LANE) for f in statuses if f not in finished]
    lost = _lost_to_cost(loaded, dear, args.teeth, idle)
    code = _conclude(folder, finished, args, whole=whole, too_dear=lost)
    return verdict.INTERRUPTED if stopped and code != verdict.REFUSED else code


def _dear_entries(suite: Suite, seconds: float | None) -> DearEntries | None:
    return dear_entries(promoted_runs(suite.evidence_dir), seconds) if seconds else None


def _lost_to_cost(
    loaded: Loaded, dear: DearEntries | None, teeth: str, lanes: Sequence[str]
) -> list[TooDear]:
    """What was left out for its cost of lanes that have no run."""
    plans = (make_plan(loaded.contracts, teeth=teeth, lane=lane) for lane in lanes)
    found = [dear.among(entry.key for entry in plan) for plan in plans] if dear else []
    return [too_dear for too_dear in found if too_dear]


def _asked_for(args: argparse.Namespace) -> str:
    dearest = f"{args.dearest:g}" if args.dearest else ""
    asked = {"-k": args.keyword, "--lane": ", ".join(args.lane), "--dearest": dearest}
    return ", ".join(f"{name} {value}" for name, value in asked.items() if value) or "the suite"


def _rounds(args: argparse.Namespace, loaded: Loaded) -> list[list[str]]:
    """Lanes that run side by side, one round after the other."""
    if args.lane:
        rounds = [[lane for lane in lanes if lane in args.lane] for lanes in _ALL_ROUNDS]
        return [lanes for lanes in rounds if lanes]
    if not visible_gpus():
        return [["all"]]
    tests = (test for contract in loaded.contracts for test in contract.tests)
    alone = any(case.lane == GPUS_ALONE for test in tests for case in test.cases)
    return _ALL_ROUNDS if alone else _ALL_ROUNDS[:1]


def _run_rounds(
    args: argparse.Namespace, rounds: list[list[str]], folder: Path
) -> tuple[dict[Path, int], bool]:
    """The status of each lane by its folder, and whether all were begun: not after an interrupt."""
    statuses: dict[Path, int] = {}
    for lanes in rounds:
        if _STOPPED in statuses.values():
            return statuses, False
        folders = [folder / f"{_LANE}{lane}" for lane in lanes]
        extra = ["--shared-cores"] if len(lanes) > 1 else []
        if args.dearest:
            extra += ["--too-dear", str(folder / TOO_DEAR_FILE)]
        sessions = [_session(args, lane, f) + extra for lane, f in zip(lanes, folders, strict=True)]
        statuses |= zip(folders, _run_side_by_side(sessions, folder), strict=True)
    return statuses, True


def _run_id() -> str:
    # The random part keeps two runs apart that begin in the same second.
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _check_subject(suite: Suite, name: str) -> None:
    """Find the subject's module before anything runs; its attribute is met when it is imported.

    Raises:
        SuiteError: there is no such subject, or no such module.
    """
    module = suite.subject(name).partition(":")[0]
    try:
        fault = "" if find_spec(module) else f"No module named {module!r}"
    except Exception as error:  # the packages above it are imported, and may raise anything
        fault = f"{type(error).__name__}: {error}"
    if fault:
        raise SuiteError(
            f"--subject {name}: cannot be imported: {fault}. Install it or put its folder on "
            "PYTHONPATH; nothing was run"
        )


def _session(args: argparse.Namespace, lane: str, folder: Path) -> list[str]:
    """The pytest command of one lane."""
    suite: Suite = args.suite
    command = [sys.executable, "-m", "pytest", str(suite.falsifiers_dir)]
    command += session_options(suite.name, suite.root)
    # With a worker in place of a lost one, xdist may wait for an item that nobody has any more.
    workers = "1" if lane == GPUS_ALONE else args.workers
    command += ["-n", workers, "--dist", "loadgroup", "--max-worker-restart=0"]
    command += ["--continue-on-collection-errors"]
    command += ["-q", "--no-header", "--tb=short", "--lane", lane, "--teeth", args.teeth]
    command += ["--evidence", str(folder), "--subject", args.subject]
    command += [part for asset in args.asset for part in ("--asset", asset)]
    command += [part for device in args.require for part in ("--require", device)]
    return [*command, *(["-k", args.keyword] if args.keyword else [])]


def _run_side_by_side(sessions: list[list[str]], folder: Path) -> list[int]:
    """Run all sessions. The first prints as it goes, the others at the end.

    Returns:
        Their exit statuses; of all of them that of one stopped, where this process was.
    """
    logs = [folder / f"session-{index}.log" for index in range(1, len(sessions))]
    running: list[subprocess.Popen[bytes]] = []
    try:
        _start(sessions, logs, running)
        statuses = _wait(running)
    except KeyboardInterrupt as stop:
        if isinstance(stop, Terminated):  # it may have come to this process alone
            for process in running:
                process.terminate()
        _wait(running)  # they know of it, and are closing their runs
        statuses = [_STOPPED] * len(sessions)
    for log in filter(Path.exists, logs):
        print(f"\n{log.read_text()}", end="", flush=True)
        log.unlink()
    return statuses


def _start(
    sessions: list[list[str]], logs: list[Path], running: list[subprocess.Popen[bytes]]
) -> None:
    """Start all sessions, each but the first with a log of its own; adds them to `running`."""
    first, *others = sessions
    running.append(subprocess.Popen(first, env=session_environment()))
    for command, log in zip(others, logs, strict=True):
        with log.open("w") as stream:
            running.append(
                subprocess.Popen(
                    command, stdout=stream, stderr=subprocess.STDOUT, env=session_environment()
                )
            )


def _wait(running: list[subprocess.Popen[bytes]]) -> list[int]:
    return [process.wait() for process in running]


def _conclude(
    folder: Path,
    lanes: list[Path],
    args: argparse.Namespace,
    *,
    whole: bool,
    too_dear: Sequence[TooDear],
) -> int:
    try:
        runs = [read_run(lane) for lane in lanes]
        named = _localizations(runs, args)
        join_lanes(runs, folder, _command(args), named, whole=whole, too_dear=too_dear)
        joined = read_run(folder)
    except EvidenceRefused as refusal:
        print(f"aprverify: the run is refused: {refusal}", file=sys.stderr)
        return verdict.REFUSED
    write_files(folder, files_of_run(joined))
    print()
    print(render_summary(joined, colour=sys.stdout.isatty()), end="")
    print(f"report: {folder / REPORT_FILE}")
    return verdict.exit_code(joined, args.require)


def _localizations(runs: list[Run], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By key, what is first at fault in the claims that failed; nothing where none did."""
    failed = falsified(row for run in runs for row in run.rows)
    # Whoever stops a run, and a CI job above all, waits for it no longer than it takes to close.
    stopped = any(run.footer.interrupted for run in runs)
    if not failed or not args.localize or stopped:
        return {}
    suite: Suite = args.suite
    entries = count(len(failed), "falsified entry", "falsified entries")
    limit = f"at most {args.localize:g} s; --localize 0 leaves it out"
    print(f"\nNaming what is first at fault in {entries} ({limit})", flush=True)
    talks = workers(suite.name, args.subject or suite.default_subject, args.asset)
    return localized(failed, talks, Limits(seconds=args.localize), _say)


def _say(line: str) -> None:
    print(f"  {printable(line)}", flush=True)


def _command(args: argparse.Namespace) -> list[str]:
    command = ["aprverify", "verify", "--teeth", args.teeth]
    command += [part for device in args.require for part in ("--require", device)]
    # Only the name: a path says nothing elsewhere, and evidence holds no local paths.
    command += [p for a in args.asset for p in ("--asset", f"{a.partition('=')[0]}=…")]
    command += [part for lane in args.lane for part in ("--lane", lane)]
    command += [f"--dearest={args.dearest:g}"] if args.dearest else []
    command += ["--subject", args.subject] if args.subject else []
    command += [f"--localize={args.localize:g}"] if args.localize != Limits.seconds else []
    return [*command, *(["-k", args.keyword] if args.keyword else [])]
