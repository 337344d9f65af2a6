"""``aprverify campaign``: false alarms, looked for under seeds that no contract names."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aprverify import __version__
from aprverify.campaign.journal import CAMPAIGN_FILE, CAMPAIGN_SCHEMA, Journal, Line
from aprverify.campaign.report import render_campaigns
from aprverify.campaign.results import read_campaign
from aprverify.campaign.running import FalseAlarm, Session, is_worthwhile
from aprverify.campaign.schedule import Schedule, schedule, seconds_of
from aprverify.campaign.seeds import RULE
from aprverify.campaign.targets import NothingSelected, Target, targets_of, without_seed
from aprverify.campaign.worker import evaluated
from aprverify.contract.model import DEVICES
from aprverify.environment import describe_commit
from aprverify.evidence import verdict
from aprverify.evidence.markdown import count
from aprverify.evidence.promote import promoted_runs
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.values import decode
from aprverify.evidence.writer import utc_now
from aprverify.gpus import visible_gpus
from aprverify.matrix.pool import Command, Pool
from aprverify.matrix.trial import Trials
from aprverify.plugin.lanes import workers_asked_for
from aprverify.plugin.state import State, state_of_worker
from aprverify.source_id import package_sha256
from aprverify.suite import Suite
from aprverify.views.beside import REPORT_FILE, files_of_campaign, write_files

FALSE_ALARM = 3
"""A clean evaluation was falsified."""
_USAGE = 2
_EVALUATIONS = 1000
_LIMIT = 600.0
_WORKER = "aprverify.campaign.worker"
_EXIT_CODES = """\
exit codes: 0 nothing was falsified (the report says what did not reach its number); 2 usage, or
problems of the contracts; 3 a clean evaluation was falsified; 4 something broke; 6 nothing reached
a verdict; 7 the campaign is refused as evidence; 130 stopped, what was done is kept"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "campaign",
        help="evaluate the clean subject under a thousand other seeds: no false alarms",
        description="Evaluate every seeded claim on the clean subject again and again, with seeds "
        "that no contract names. Ends with how often each failed, and how near it came.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="ID",
        help="contract, gate, invariant or test, or a glob of them; key:value of a case",
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="cpu", help="cases to evaluate (default: cpu)"
    )
    parser.add_argument(
        "--evaluations",
        type=_positive,
        default=_EVALUATIONS,
        metavar="N",
        help=f"of each claim on the device, shared among its cases (default: {_EVALUATIONS})",
    )
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        metavar="K",
        help="begin with seed K of each case, on a machine that adds to another's (default: 0)",
    )
    parser.add_argument("-n", dest="workers", default="auto", metavar="N", help="processes")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="begin nothing after so long"
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="new folder (default: evidence/local/TIME)"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with the campaign in this folder"
    )
    parser.add_argument(
        "--again", metavar="KEY", help="evaluate TEST[CASE] once, seed included, and show it"
    )
    parser.add_argument(
        "--report",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="evaluate nothing: join these campaigns, and print one report",
    )
    parser.add_argument("--subject", default="", help="trainer under test")
    parser.add_argument(
        "--asset", action="append", default=[], metavar="NAME=FILE", help="use this file"
    )
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give a number from 1")
    return number


def run(args: argparse.Namespace) -> int:
    """Evaluate, go on, evaluate once, or report. Returns an exit status of `_EXIT_CODES`."""
    try:
        if args.report:
            print(render_campaigns([read_campaign(path) for path in args.report]), end="")
            return verdict.OK
        if args.again:
            return _again(args)
        return _campaign(args)
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    except (NothingSelected, _Misuse) as misuse:
        print(f"aprverify: {misuse}", file=sys.stderr)
        return _USAGE


class _Misuse(Exception):
    """Options that do not go together, or not with what is here."""


def _campaign(args: argparse.Namespace) -> int:
    if args.device == "cuda" and not visible_gpus():
        raise _Misuse("--device cuda: no CUDA GPU is visible")
    try:
        workers_asked_for(args.workers)
    except ValueError as misuse:
        raise _Misuse(str(misuse)) from None
    subject = args.subject or args.suite.default_subject
    state = state_of_worker(args.suite.name, subject, args.asset)
    if state.loaded.problems:
        raise _Misuse(f"the contracts have problems: {state.loaded.problems[0]}")
    targets = targets_of(state.entries, args.device, args.words)
    tests = {target.test.id: _test_body(state, target, targets) for target in targets}
    folder = _folder(args)
    journal = Journal(folder, resume=args.resume is not None)
    try:
        return _session(args, state, targets, tests, journal, folder)
    finally:
        journal.close()


def _session(
    args: argparse.Namespace,
    state: State,
    targets: list[Target],
    tests: Mapping[str, Mapping[str, Any]],
    journal: Journal,
    folder: Path,
) -> int:
    _same_campaign(args, state, journal.before, tests, folder)
    workers = workers_asked_for(args.workers)
    subject = state.subject_name
    command = Command(
        args.suite.name, subject, args.device, workers, _LIMIT, tuple(args.asset), _WORKER
    )
    plan = schedule(targets, args.evaluations, args.first, _known_seconds(args.suite))
    _recall(plan, journal.before)
    pool = Pool(command)
    try:
        name = journal.before[0]["campaign"] if journal.before else folder.name
        journal.line("session", _session_body(args, name, subject, workers, pool.environment()))
        session = Session(journal, plan, tests, args.budget, _tell)
        why = session.run(pool)
    finally:
        pool.close()
    campaign = read_campaign(folder)
    write_files(folder, files_of_campaign(campaign))
    print(f"{count(campaign.verdicts, 'evaluation')}, ended: {why}")
    print(f"report: {folder / REPORT_FILE}")
    if why == "interrupted":
        return verdict.INTERRUPTED
    if campaign.alarms:
        return FALSE_ALARM
    if campaign.broken:
        return verdict.BROKEN
    return verdict.OK if campaign.verdicts else verdict.NOTHING_RAN


def _folder(args: argparse.Namespace) -> Path:
    if args.resume is not None:
        if not (args.resume / CAMPAIGN_FILE).is_file():
            raise _Misuse(f"--resume {args.resume}: no {CAMPAIGN_FILE} in it")
        return Path(args.resume).resolve()
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-campaign-{args.device}"
    folder = Path(args.run_dir or args.suite.evidence_dir / "local" / name).resolve()
    if folder.exists():
        raise _Misuse(f"{folder} exists; name a new folder, or --resume it")
    return folder


def _same_campaign(
    args: argparse.Namespace,
    state: State,
    before: list[Line],
    tests: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> None:
    """Going on must be about the same device, subject, seeds and files."""
    now = {"device": args.device, "subject": state.subject_name, "first": args.first}
    for line in before:
        if line["type"] == "session":
            wrong = [name for name, value in now.items() if line[name] != value]
            if wrong:
                raise _Misuse(f"--resume {folder}: it has another {wrong[0]}, {line[wrong[0]]}")
        test = tests.get(line["test"]) if line["type"] == "test" else None
        if test is not None and test["source_id"] != line["source_id"]:
            what = f"the files of {line['test']} changed since; begin a new campaign"
            raise _Misuse(f"--resume {folder}: {what}")


def _recall(plan: Schedule, before: list[Line]) -> None:
    for line in before:
        if line["type"] == "lot":
            key = f"{line['test']}[{line['case']}]"
            counts = (line["drawn"], line["verdicts"], line["seconds"])
            plan.recall(key, *counts, is_worthwhile(line))


def _known_seconds(suite: Suite) -> dict[str, float]:
    return seconds_of(
        (f"{row.test}[{without_seed(row.case)}]", row.seconds)
        for run in promoted_runs(suite.evidence_dir)
        for row in run.rows
        if row.outcome == "held"
    )


def _session_body(
    args: argparse.Namespace, name: str, subject: str, workers: int, environment: Any
) -> dict[str, Any]:
    commit, dirty = describe_commit(args.suite.root)
    return {
        "schema": CAMPAIGN_SCHEMA,
        "campaign": name,
        "started": utc_now(),
        "command": _invocation(args),
        "suite": args.suite.name,
        "subject": subject,
        "device": args.device,
        "evaluations": args.evaluations,
        "first": args.first,
        "budget": args.budget,
        "workers": workers,
        "seeds": RULE,
        "source": {
            "commit": commit,
            "dirty": dirty,
            "aprverify_version": __version__,
            "aprverify_sha256": package_sha256(Path(__file__).resolve().parent.parent),
        },
        "environment": environment,
    }


def _invocation(args: argparse.Namespace) -> list[str]:
    command = ["aprverify", "campaign", *args.words, "--device", args.device]
    command += ["--evaluations", str(args.evaluations), "-n", args.workers]
    command += ["--first", str(args.first)] if args.first else []
    command += ["--budget", f"{args.budget:g}"] if args.budget is not None else []
    command += ["--resume", "…"] if args.resume is not None else []
    command += [p for a in args.asset for p in ("--asset", f"{a.partition('=')[0]}=…")]
    return [*command, *(["--subject", args.subject] if args.subject else [])]


def _test_body(state: State, target: Target, targets: list[Target]) -> dict[str, Any]:
    test = target.test
    return {
        "test": test.id,
        "contract": target.entry.contract.id,
        "rule": test.rule,
        "falsifier": test.falsifier,
        "source_id": state.source_id(target.entry),
        "claims": [{"id": c.id, "expr": c.expr, "alpha": c.alpha} for c in test.claims],
        "comparisons": [
            {"claim": c.id, "text": one.text} for c in test.claims for one in c.comparisons
        ],
        "cases": [other.case_id for other in targets if other.test.id == test.id],
    }


def _tell(alarm: FalseAlarm) -> None:
    print(f"FALSE ALARM {alarm.key}: {alarm.text}: {alarm.observed} {alarm.op} {alarm.bound}")
    print(f"  see it again: aprverify campaign --again {shlex.quote(alarm.key)}", flush=True)


def _again(args: argparse.Namespace) -> int:
    """One evaluation, in this process."""
    subject = args.subject or args.suite.default_subject
    state = state_of_worker(args.suite.name, subject, args.asset)
    name, _, case = args.again.removesuffix("]").partition("[")
    parts = case.split(",")
    (seed,) = [p.partition("=")[2] for p in parts if p.startswith("seed=")] or [""]
    key = f"{name}[{','.join(p for p in parts if not p.startswith('seed='))}]"
    found = [t for device in DEVICES for t in targets_of(state.entries, device, ())]
    target = next((t for t in found if t.key == key), None)
    if target is None or not seed.isdigit():
        raise _Misuse(f"--again {args.again}: give TEST[CASE,seed=NUMBER] of a seeded case")
    answer = evaluated(Trials(state, _LIMIT), target.with_seed(int(seed)))
    print(f"{target.with_seed(int(seed)).key}: {answer['outcome']} {answer['detail']}".rstrip())
    for one in answer["comparisons"]:
        used = "" if one["used"] is None else f"  used {one['used']:.3g} of the tolerance"
        sides = f"{decode(one['observed'])!r} {one['op']} {decode(one['bound'])!r}"
        print(f"  {'held     ' if one['holds'] else 'FALSIFIED'} {one['text']}: {sides}{used}")
    held = {"held": verdict.OK, "falsified": FALSE_ALARM}
    return held.get(str(answer["outcome"]), verdict.BROKEN)
