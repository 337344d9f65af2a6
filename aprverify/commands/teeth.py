"""``aprverify teeth``: every planted defect under every falsifier that can afford it.

First the declared pairs, as `aprverify verify` runs them; then all defects under the cheap
falsifiers, whose clean rows say that they hold and what they take. Both are in one run.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aprverify.evidence import verdict
from aprverify.evidence.crosses import Column, cross_body
from aprverify.evidence.join import write_matrix_run
from aprverify.evidence.markdown import count
from aprverify.evidence.matrix_markdown import matrix_summary
from aprverify.evidence.matrix_rules import matrix_exit_code
from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.records import Run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.gate.checkout import open_checkout, present_source_ids
from aprverify.gpus import visible_gpus
from aprverify.matrix.pool import Command, Pool
from aprverify.matrix.selection import Lot, columns_of, cost, fitting, lots_of
from aprverify.plugin.lanes import workers_asked_for
from aprverify.plugin.state import state_of_worker
from aprverify.suite import Suite
from aprverify.views.beside import REPORT_FILE, files_of_run, write_files

_USAGE = 2
_BUDGET = 600.0
_PLANNED = 0.8
"""The share of the time left that is planned for: defects make some falsifiers slower."""
_TOLD_EVERY = 20.0
_FALSIFIER_LIMIT = 20.0
_FULL_LIMIT = 600.0
_EXIT_CODES = """\
exit codes: 0 every defect is caught by its contracts, and every falsifier catches one; 1 a claim
was falsified without a defect; 2 usage, or problems of the contracts; 3 a survivor, a defect that
its contract does not catch, or an idle falsifier; 4 something broke, was left behind, or was caught
once and once not; 6 nothing reached a verdict; 7 the run is refused as evidence; 130 stopped"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "teeth",
        help="plant every defect under every cheap falsifier: the matrix",
        description="Run every declared pair of falsifier and defect, and all defects under the "
        "falsifiers that take tens of milliseconds. Ends with what nobody catches.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--full", action="store_true", help="cross the dear falsifiers too; tells the cost first"
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="cases to cross (default: cpu)"
    )
    parser.add_argument(
        "--reuse", type=Path, metavar="RUN", help="take the declared pairs from this run"
    )
    parser.add_argument("-n", dest="workers", default="auto", metavar="N", help="processes")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help=f"begin nothing after so long (default: plan what fits into {_BUDGET:.0f}; "
        "with --full no end)",
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="new folder (default: evidence/local/TIME)"
    )
    parser.add_argument("--subject", default="", help="trainer under test")
    parser.add_argument(
        "--asset", action="append", default=[], metavar="NAME=FILE", help="use this file"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Declared pairs, crosses, report. Returns a code of `aprverify.evidence.verdict`."""
    begun = time.monotonic()
    suite: Suite = args.suite
    try:
        workers_asked_for(args.workers)
    except ValueError as misuse:
        print(f"aprverify: {misuse}", file=sys.stderr)
        return _USAGE
    if args.device == "cuda" and not visible_gpus():
        print("aprverify: --device cuda: no CUDA GPU is visible", file=sys.stderr)
        return _USAGE
    folder = (args.run_dir or suite.evidence_dir / "local" / _new_name()).resolve()
    if folder.exists():
        print(f"aprverify: {folder} exists; name a new folder", file=sys.stderr)
        return _USAGE
    try:
        diagonal = _diagonal(args, folder)
        if diagonal is None:
            return _USAGE
        if diagonal.footer.interrupted:
            return verdict.INTERRUPTED
        return _conclude(diagonal, folder, *_Crossing(args, diagonal, begun).run(), args)
    except EvidenceRefused as refusal:
        print(f"aprverify: the run is refused: {refusal}", file=sys.stderr)
        return verdict.REFUSED


def _new_name() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-teeth"


def _diagonal(args: argparse.Namespace, folder: Path) -> Run | None:
    """The run of the declared pairs; None where there is none, and why was printed."""
    if args.reuse is not None:
        return _reusable(args, read_run(args.reuse))
    place = folder / "declared"
    command = [sys.executable, "-m", "aprverify", "--suite", args.suite.name, "verify"]
    command += ["-n", args.workers, "--run-dir", str(place), "--subject", args.subject]
    command += [part for asset in args.asset for part in ("--asset", asset)]
    if args.device == "cpu":
        command += ["-k", "device:cpu"] if visible_gpus() else []
    subprocess.run(command, check=False)
    if not (place / RUN_FILE).exists():
        print("aprverify: the declared pairs left no run; the output above says why")
        return None
    return read_run(place)


def _reusable(args: argparse.Namespace, run: Run) -> Run | None:
    """The run, if it is about the present files and subject."""
    subject = args.subject or args.suite.default_subject
    checkout = open_checkout(args.suite)
    present = present_source_ids(checkout, subject)
    stale = [row.key for row in run.rows if present.get(row.key) != row.source_id]
    wrong = ""
    if checkout.loaded.problems:
        wrong = f"the contracts have problems: {checkout.loaded.problems[0]}"
    elif run.header.subject != subject:
        wrong = f"it is about the subject {run.header.subject}"
    elif stale:
        wrong = f"{count(len(stale), 'row')} of it are about other files, as {stale[0]}"
    elif run.header.selection.teeth != "declared":
        wrong = "no defect was planted in it"
    if wrong:
        print(f"aprverify: --reuse {args.reuse}: {wrong}; run without it", file=sys.stderr)
        return None
    return run


class _Crossing:
    """The crosses of one command."""

    def __init__(self, args: argparse.Namespace, diagonal: Run, begun: float) -> None:
        self._args, self._diagonal, self._begun = args, diagonal, begun
        self._budget: float | None = args.budget or (None if args.full else _BUDGET)
        subject = args.subject or args.suite.default_subject
        self._state = state_of_worker(args.suite.name, subject, args.asset)
        workers = workers_asked_for(args.workers)
        limit = _FULL_LIMIT if args.full else _FALSIFIER_LIMIT
        self._command = Command(
            args.suite.name, subject, args.device, workers, limit, tuple(args.asset)
        )
        self._lines: list[dict[str, Any]] = []
        self._done = 0
        self._told = time.monotonic()

    def run(self) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
        """The environment, the matrix line and the cross lines."""
        args = self._args
        found, left_out = columns_of(self._state, self._diagonal, args.device, args.full)
        begun = time.monotonic()
        pool = Pool(self._command)
        try:
            environment = pool.environment()
            columns, never = self._watch(pool, found, left_out)
            columns = self._affordable(columns, never, left_out)
            pairs = {
                defect: [c for c in columns if c.key not in never.get(defect, ())]
                for defect in self._state.defects
            }
            for defect in self._state.defects:
                if defect in never:
                    self._lines.append(cross_body(defect, "same", _never(columns, never[defect])))
            planned, estimated = len(columns) * len(pairs), cost(pairs, self._command.workers)
            self._announce(columns, pairs, estimated)
            lots = lots_of(pairs, self._state.loaded.contracts)
            self._total = sum(len(lot.keys) for lot in lots)
            deadline = None if self._budget is None else self._begun + self._budget
            pool.cross(lots, deadline, self._report)
        finally:
            pool.close()
        matrix = {
            "full": args.full,
            "device": args.device,
            "seconds": round(time.monotonic() - begun, 3),
            "estimated": round(estimated, 3),
            "budget": self._budget,
            "workers": self._command.workers,
            "planned": planned,
            "columns": [vars(column) for column in columns],
            "left_out": left_out,
        }
        return environment, matrix, self._lines

    def _watch(
        self, pool: Pool, found: Sequence[Column], left_out: dict[str, str]
    ) -> tuple[list[Column], dict[str, set[str]]]:
        """The columns with their warm times, and for each defect those that never call it."""
        seen = pool.watch([column.key for column in found])
        columns: list[Column] = []
        never: dict[str, set[str]] = {}
        for column in found:
            told = seen.get(column.key)
            if told is None or not told["held"]:
                left_out[column.test] = "does not hold when called outside of pytest"
                continue
            if not (told["in_process"] or self._args.full):
                left_out[column.test] = "starts processes of its own"
                continue
            columns.append(replace(column, seconds=told["seconds"]))
            # What other threads of a device run is not watched.
            unplanted = told["never_called"] if self._args.device == "cpu" else []
            for defect in (*unplanted, *told["passed_on"]):
                never.setdefault(defect, set()).add(column.key)
        return columns, never

    def _affordable(
        self, columns: Sequence[Column], never: Mapping[str, set[str]], left_out: dict[str, str]
    ) -> list[Column]:
        """The columns for which a default matrix has time. A budget that was asked for cuts it."""
        if self._args.full or self._args.budget is not None:
            return list(columns)
        rest = max(0.0, self._begun + _BUDGET - time.monotonic())
        kept = fitting(
            columns, never, len(self._state.defects), rest * _PLANNED * self._command.workers
        )
        for column in columns:
            if column not in kept:
                left_out[column.test] = f"takes {column.seconds:.2g} s, and time is short"
        if dropped := len(columns) - len(kept):
            said = f"{count(dropped, 'falsifier')} left out, the dearest: {rest:.0f} s are left"
            print(f"\n{said} of {_BUDGET:.0f} (--full crosses all, --reuse saves time)")
        return kept

    def _announce(
        self, columns: Sequence[Column], pairs: Mapping[str, Sequence[Column]], estimated: float
    ) -> None:
        planted = sum(map(len, pairs.values()))
        print(
            f"\ncrossing {count(len(pairs), 'defect')} with {count(len(columns), 'falsifier')}: "
            f"{planted} pairs to plant of {len(pairs) * len(columns)} (the others never meet what "
            f"the defect changes), about {estimated:.0f} s on {self._command.workers} processes",
            flush=True,
        )

    def _report(self, lot: Lot, told: list[dict[str, Any]], canary: str) -> None:
        self._lines.append(cross_body(lot.defect, canary, told))
        self._done += len(told)
        if time.monotonic() - self._told > _TOLD_EVERY:
            self._told = time.monotonic()
            print(f"  {self._done} of {self._total} pairs", flush=True)


def _never(columns: Sequence[Column], keys: set[str]) -> list[dict[str, Any]]:
    return [{"column": c.key, "never_called": True} for c in columns if c.key in keys]


def _conclude(
    diagonal: Run,
    folder: Path,
    environment: dict[str, Any],
    matrix: dict[str, Any],
    crosses: list[dict[str, Any]],
    args: argparse.Namespace,
) -> int:
    write_matrix_run(diagonal, folder, _invocation(args), environment, matrix, crosses)
    if args.reuse is None:
        shutil.rmtree(diagonal.path.parent)
    found = read_run(folder)
    write_files(folder, files_of_run(found))
    print()
    print(*matrix_summary(found), sep="\n")
    print(f"report: {folder / REPORT_FILE}")
    return matrix_exit_code(found)


def _invocation(args: argparse.Namespace) -> list[str]:
    command = ["aprverify", "teeth", "--device", args.device]
    command += ["--full"] if args.full else []
    command += ["--budget", f"{args.budget:g}"] if args.budget else []
    command += [p for a in args.asset for p in ("--asset", f"{a.partition('=')[0]}=…")]
    return [*command, *(["--subject", args.subject] if args.subject else [])]
