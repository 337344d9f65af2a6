"""``aprverify bisect``: which commit of the trainer made a claim fall over.

Suite, contracts and bounds are those of today; only the trainer is taken from each commit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aprverify.bisect.history import HistoryError, Repository
from aprverify.bisect.memory import Log, LogRefused, Memory
from aprverify.bisect.report import render
from aprverify.bisect.session import Bisection, Finding
from aprverify.bisect.setting import Setting, add_options, prepare
from aprverify.evidence import verdict

_USAGE = 2
_EXIT_CODES = """\
exit codes: 0 one commit is named for every id; 2 usage; 4 only a range of commits, or a verdict
that changes from run to run; 6 nothing to find: GOOD is not good, BAD is not bad, or they cannot
be tested; 130 stopped, go on with --resume"""
_ASKED = ("ids", "first_parent", "device", "subject", "moves", "asset")


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "bisect",
        help="find the commit of the trainer at which claims fell over",
        description="Find the commit of the trainer at which claims fell over, by today's suite.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words", nargs="*", metavar="GOOD BAD ID", help="two commits; contracts, tests, …, cases"
    )
    parser.add_argument(
        "--first-parent", action="store_true", help="blame merges, not the commits they bring"
    )
    add_options(parser)
    logs = parser.add_mutually_exclusive_group()
    logs.add_argument("--log", type=Path, metavar="FILE", help="(default: in the .git folder)")
    logs.add_argument(
        "--resume", nargs="?", const="", metavar="FILE", help="go on from the log, or from FILE"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search, then say what was found."""
    try:
        with TemporaryDirectory(prefix="aprverify-bisect-") as scratch:
            return _run(args, Path(scratch).resolve())
    except (HistoryError, LogRefused) as error:
        print(f"aprverify: {error}", file=sys.stderr)
        return _USAGE


def _run(args: argparse.Namespace, scratch: Path) -> int:
    repository = Repository(Path.cwd())
    default = repository.root / repository.git("rev-parse", "--git-path", "aprverify-bisect.jsonl")
    if args.resume is not None:
        if args.words:
            raise LogRefused("--resume takes GOOD, BAD and the ids from the log: give none")
        log = Log(Path(args.resume) if args.resume else default)
        question, known = log.read()
    else:
        log, known = Log(args.log or default), []
        question = _question(args, repository)
    setting = prepare(args.suite, question["ids"], question, scratch)
    memory = Memory(setting.judge)
    if args.resume is None:
        log.begin({**question, "suite": setting.trials.frozen.digest, "machine": setting.machine})
    else:
        _same_judge(question, setting)
        for label, seen in known:
            memory.restore(label, seen)
    bisection = Bisection(repository, setting.place, setting.trials, memory, log, _progress)
    try:
        asked = dict(setting.entries)
        findings = bisection.find(
            question["good"], question["bad"], asked, question["first_parent"]
        )
        bisection.confirm(findings, asked, question["first_parent"])
    except KeyboardInterrupt:
        resume = "" if log.path == default else f" {log.path}"
        print(f"\nstopped; go on with: aprverify bisect --resume{resume}", file=sys.stderr)
        return verdict.INTERRUPTED
    suite = [] if args.suite.name == "bundled" else ["--suite", args.suite.name]
    probe = ["aprverify", *suite, "probe", *_options(question)]
    print(*(render(finding, repository, probe) for finding in findings), sep="\n", end="")
    print(f"log: {log.path} ({bisection.processes} trials were run)")
    return max(_status(finding) for finding in findings)


def _question(args: argparse.Namespace, repository: Repository) -> dict[str, Any]:
    if len(args.words) < 3:
        raise HistoryError("bisect needs GOOD BAD ID [ID …], or --resume")
    good, bad = (repository.resolve(word) for word in args.words[:2])
    bases = repository.merge_bases(good, bad)
    if good == bad:
        raise HistoryError(f"GOOD and BAD are the same commit, {good[:10]}")
    if bases == [bad]:
        raise HistoryError("BAD is an ancestor of GOOD: was that the other way round?")
    if not bases:
        hint = "; this clone is shallow: git fetch --unshallow" if repository.shallow else ""
        raise HistoryError(f"GOOD and BAD have no commit in common{hint}")
    body = {name: getattr(args, name) for name in _ASKED if name != "ids"}
    return {"good": good, "bad": bad, "ids": args.words[2:], **body}


def _same_judge(question: dict[str, Any], setting: Setting) -> None:
    if question["suite"] != setting.trials.frozen.digest:
        raise LogRefused("the suite has changed since the log was begun: begin anew")
    if question["machine"] != setting.machine:
        raise LogRefused("the log is of another machine, or of other packages: begin anew")


def _options(question: dict[str, Any]) -> Sequence[str]:
    named = ("device", "subject")
    words = [w for name in named if question[name] for w in (f"--{name}", str(question[name]))]
    words += [word for package in question["moves"] for word in ("--moves", package)]
    return [*words, *(word for asset in question["asset"] for word in ("--asset", asset))]


def _progress(line: str) -> None:
    print(f"bisect: {line}", file=sys.stderr, flush=True)


def _status(finding: Finding) -> int:
    if finding.named:
        return verdict.OK
    return verdict.BROKEN if finding.culprits else verdict.NOTHING_RAN
