"""``aprverify mutants``: faults that nobody planned. A sample of small changes of the trainer's
numerical code, each tried by the falsifiers that execute it; ends with the score and the survivors.
"""

from __future__ import annotations

import argparse
import inspect
import shlex
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aprverify import __version__
from aprverify.contract.lint import load_suite
from aprverify.environment import describe_commit
from aprverify.evidence import verdict
from aprverify.matrix.pool import Pool
from aprverify.mutants import record as records
from aprverify.mutants import report, triage
from aprverify.mutants.settings import MutantsError, Settings, read_settings
from aprverify.plan import make_plan
from aprverify.plugin.in_process import falsifier_of
from aprverify.plugin.lanes import workers_asked_for
from aprverify.source_id import digest_files, package_sha256
from aprverify.suite import Suite

_USAGE, _OPEN = 2, 3
_SCHEMA = 1
_EXIT_CODES = """\
exit codes: 0 every survivor is argued to be equivalent or has a claim; 2 usage, or settings that do
not fit the sources; 3 a survivor that nobody has thought about, or a gap that is open; 4 a control
fell, or nothing could be tried; 130 stopped, go on with --resume"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "mutants",
        help="change the trainer's source at random places: which claims notice",
        description="Change the trainer's numerical code at places drawn at random, and see which "
        "claims fall. Nothing is written over the tree.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sample", type=int, default=300, metavar="N", help="mutants (300)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument(
        "--mutant", action="append", default=[], metavar="ID", help="this one, instead of a draw"
    )
    parser.add_argument("-n", dest="workers", default="auto", metavar="N", help="processes")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="begin no mutant after so long"
    )
    parser.add_argument(
        "--patience", type=float, default=60.0, metavar="SECONDS", help="for one mutant (60)"
    )
    parser.add_argument(
        "--dearest", type=float, default=10.0, metavar="SECONDS", help="leave out dearer cases (10)"
    )
    parser.add_argument(
        "--controls", type=int, default=2, metavar="N", help="unchanged sources to try (2)"
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="(default: evidence/local/TIME-mutants)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --run-dir")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write the report of this run again, and judge"
    )
    parser.add_argument("--subject", default="", help="trainer under test")
    parser.add_argument(
        "--asset", action="append", default=[], metavar="NAME=FILE", help="use this file"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw, try, report; returns the exit code."""
    try:
        if args.report is not None:
            return _judge(args, args.report)
        folder = _folder(args)
        _Run(args, folder).run()
        return _judge(args, folder)
    except ModuleNotFoundError as missing:
        if missing.name not in ("cosmic_ray", "parso", "attrs"):
            raise
        print(
            f"aprverify: {missing.name} is not installed; pip install 'aprverify[mutants]'",
            file=sys.stderr,
        )
        return _USAGE
    except MutantsError as error:
        print(f"aprverify: {error}", file=sys.stderr)
        return _USAGE


def _folder(args: argparse.Namespace) -> Path:
    try:
        workers_asked_for(args.workers)
    except ValueError as misuse:
        raise MutantsError(str(misuse)) from None
    if args.sample < 1 or args.controls < 0:
        raise MutantsError("--sample counts from 1, and --controls from 0")
    if args.resume and args.run_dir is None:
        raise MutantsError("--resume: say with --run-dir what to go on with")
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-mutants"
    folder: Path = (args.run_dir or args.suite.evidence_dir / "local" / name).resolve()
    if folder.exists() and not args.resume:
        raise MutantsError(f"{folder} exists; name a new folder, or go on with --resume")
    return folder


class _Run:
    """The making of a record."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        from aprverify.mutants.population import enumerate_mutants

        self._args, self._folder, self._begun = args, folder, time.monotonic()
        self._suite: Suite = args.suite
        self._settings = read_settings(self._suite)
        self._population = enumerate_mutants(self._suite.root, self._settings)
        self._subject = args.subject or self._suite.default_subject
        self._workers = workers_asked_for(args.workers)

    def run(self) -> None:
        """Try what was drawn and not tried before."""
        from aprverify.mutants.sample import draw
        from aprverify.mutants.session import REACH_FILE, Session, worker_command

        args, population = self._args, self._population
        if args.mutant:
            unknown = [name for name in args.mutant if name not in population.by_id]
            if unknown:
                raise MutantsError(f"--mutant {unknown[0]}: the sources have no such mutant")
            drawn = [population.by_id[name] for name in args.mutant]
            passed: Mapping[str, int] = {}
        else:
            drawn, passed = draw(population, args.sample, args.seed)
        before = records.read_record(self._folder) if args.resume else None
        command = worker_command(
            self._suite.name, self._subject, self._workers, args.asset, args.patience
        )
        pool = Pool(command)
        try:
            header = self._header([mutant.id for mutant in drawn], dict(passed), pool)
            if before is not None:
                before.require_alike(header)
            writer = records.Writer(self._folder)
            if before is None:
                writer.write("header", header)
            session = Session(
                self._suite, self._settings.package, population, writer, pool, self._tell
            )
            keys, left_out = self._keys()
            watched, useless = session.watch(keys, self._folder / REACH_FILE, args.dearest)
            if not watched:
                raise MutantsError(
                    "no falsifier held on the trainer as it is; run aprverify verify"
                )
            if before is None or not before.falsifiers:
                seconds = round(sum(one.seconds for one in watched), 3)
                tests = sorted({one.entry.partition("[")[0] for one in watched})
                told = {"usable": len(watched), "seconds": seconds, "tests": tests}
                writer.write("falsifiers", {**told, "left_out": {**left_out, **useless}})
            done = before.mutants if before else {}
            controls = args.controls - (len(before.controls) if before else 0)
            waiting = [None] * controls + [m for m in drawn if m.id not in done]
            deadline = None if args.budget is None else self._begun + args.budget
            session.hunt(waiting, watched, args.patience, deadline)
            writer.write("footer", {"seconds": round(time.monotonic() - self._begun, 1)})
            if not records.read_record(self._folder).missing:
                (self._folder / REACH_FILE).unlink()
        finally:
            pool.close()
            print(file=sys.stderr)

    def _header(self, drawn: list[str], passed: dict[str, int], pool: Pool) -> dict[str, Any]:
        from aprverify.mutants.operators import library_version
        from aprverify.mutants.sample import sites_of

        args, suite, population = self._args, self._suite, self._population
        commit, dirty = describe_commit(suite.root)
        strata = sites_of(population.by_id.values())
        return {
            "schema": _SCHEMA,
            "aprverify": __version__,
            "commit": commit,
            "dirty": dirty,
            "command": shlex.join(["aprverify", *sys.argv[1:]]),
            "tool": library_version(),
            "subject": self._subject,
            "sources": _digests(suite, self._settings),
            "seed": args.seed,
            "size": args.sample,
            "named": args.mutant,
            "patience": args.patience,
            "dearest": args.dearest,
            "controls": args.controls,
            "workers": self._workers,
            "population": {
                "mutants": len(population.by_id),
                "sites": sum(map(len, strata.values())),
                "strata": len(strata),
                "left_out": dict(population.left_out),
                "passed_over": passed,
            },
            "environment": pool.environment(),
            "drawn": drawn,
        }

    def _keys(self) -> tuple[list[str], dict[str, str]]:
        from aprverify.mutants.session import unfit

        loaded = load_suite(self._suite)
        if loaded.problems:
            raise MutantsError(f"the contracts have problems: {loaded.problems[0]}")
        keys, left_out = [], {}
        for entry in make_plan(loaded.contracts, teeth="none", lane="cpu"):
            parameters = set(inspect.signature(falsifier_of(self._suite, entry)).parameters)
            if why := unfit(entry, parameters):
                left_out[entry.key] = why
            else:
                keys.append(entry.key)
        return keys, left_out

    def _tell(self, line: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def _digests(suite: Suite, settings: Settings) -> dict[str, str]:
    """What a mutant's outcome rests on. Not the settings: survivors are triaged after the run."""
    falsifiers = suite.falsifiers_dir.rglob("*.py")
    contracts = suite.contracts_dir.glob("*.yaml")
    named = {(path.relative_to(suite.root).as_posix(), path) for path in (*falsifiers, *contracts)}
    return {
        "trainer": package_sha256(suite.root / settings.package),
        "falsifiers and contracts": digest_files(frozenset(named)),
    }


def _judge(args: argparse.Namespace, folder: Path) -> int:
    from aprverify.mutants.population import enumerate_mutants

    suite: Suite = args.suite
    settings, record = read_settings(suite), records.read_record(folder)
    population = enumerate_mutants(suite.root, settings)
    tests = {test.id for c in load_suite(suite).contracts for test in c.tests}
    (folder / report.FILE).write_text(report.render(record, settings), encoding="utf-8")
    for line in report.summary(record, settings):
        print(line)
    print(f"report: {folder / report.FILE}")
    if record.header["sources"] != _digests(suite, settings):
        print("it is about other files than those of today", file=sys.stderr)
    wrong = list(triage.faults(settings, population, tests, record))
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        return _USAGE
    if not record.mutants or any(body["outcome"] != "survived" for body in record.controls):
        return verdict.BROKEN
    left = triage.untriaged(settings, record) + triage.gaps(settings, record)
    return _OPEN if left else 0
