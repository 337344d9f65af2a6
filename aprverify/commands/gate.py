"""``aprverify gate``: which gates are met, which are not, why, and what to do; for a CI job.

Gates, bounds and source ids are those of the checkout, never those that a run declares.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from aprverify.contract.lint import Problem
from aprverify.evidence import verdict
from aprverify.evidence.records import Run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.terminal import printable
from aprverify.gate.checkout import (
    Checkout,
    open_checkout,
    plantable,
    present_source_ids,
    same_subject,
    suite_at,
)
from aprverify.gate.judge import Present, judge
from aprverify.gate.policy import Policy, read_policy
from aprverify.gate.recheck import recheck
from aprverify.gate.render import SCHEMA, Setting, render_json, render_text
from aprverify.gate.runs import read_runs, signers
from aprverify.suite import SuiteError
from aprverify.trust.trusted import TRUSTED_FILE
from aprverify.trust.verify import Signature

POLICY_FILE = "gate-policy.yaml"
_USAGE = 2
_EXIT_CODES = """\
exit codes, the worst of all required gates in this order:
  7  evidence is refused, or not signed where that was asked for; nothing was judged
  2  usage, or problems in the policy or the contracts; nothing was judged
  1  falsified: a claim failed
  3  vacuous: a planted defect survived
  9  conflict: verdicts about the same files differ, or a gate that blocks shipping in a run given
     no longer does so here, or is gone, and the policy does not name it under `retired`
  4  broken or inconclusive
  8  stale: the evidence is about other files than these, of unknown source, or too old
  5  not run: PENDING, a lane open, or PARTIAL where that is not enough
  0  every required gate is met, or has a waiver in force

A policy (default: gate-policy.yaml where the contracts' folder is) says which gates are required,
where and how lately they must have run, and what is waived until when. Without one, every
ship-blocking gate is required. aprverify/schemas/policy.schema.json has its fields.

A change that brings its own policy or trusted keys judges itself: where changes come from others,
name both from a place that they cannot write to, by --policy and --trusted."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "gate",
        help="say which gates are met and which are not, why, and what to do",
        description="Judge every gate of the checkout from recorded runs. Runs nothing.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="RUN",
        type=Path,
        help="a run's folder, its run.jsonl, or a folder of evidence (default: the committed one)",
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="what the gates must fulfil")
    parser.add_argument(
        "--require-signed",
        nargs="?",
        const="",
        metavar="IDENTITY",
        help="refuse runs that no trusted identity, or not this one, has signed (after the RUNs)",
    )
    parser.add_argument(
        "--trusted",
        type=Path,
        metavar="FILE",
        help=f"whose signatures count (default: {TRUSTED_FILE})",
    )
    parser.add_argument(
        "--base",
        type=Path,
        metavar="DIR",
        help="the checkout whose files decide what is stale (default: the suite's own)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--today",
        type=_date,
        metavar="DATE",
        help="judge waivers and ages as of that day (default: now, UTC)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge and print; returns one of the exit codes above."""
    # Rows are many small objects without cycles: looking for some takes a sixth of the time.
    gc.disable()
    try:
        with suite_at(args.suite, args.base) as suite:
            return _gate(args, open_checkout(suite))
    finally:
        gc.enable()


def _gate(args: argparse.Namespace, checkout: Checkout) -> int:
    if checkout.loaded.problems:
        return _problems(checkout.loaded.problems, args.json)
    today: date = args.today or datetime.now(UTC).date()
    policy, problems = _policy(args.policy, checkout, today)
    if problems:
        return _problems(problems, args.json)
    if not any(policy.requires(gate) for c in checkout.contracts for gate in c.gates):
        # A gate that asks for nothing could not fail.
        return _nothing_required(policy, checkout, args.json)
    try:
        return _judge(args, checkout, policy, today)
    except EvidenceRefused as refusal:
        return _refused(f"refused ({type(refusal).__name__}): {refusal}", args.json)


def _judge(args: argparse.Namespace, checkout: Checkout, policy: Policy, today: date) -> int:
    suite = checkout.suite
    found, warnings = read_runs(args.paths, suite.evidence_dir)
    subject = policy.subject or suite.default_subject
    runs, foreign = _about(found, checkout, subject)
    signed_by: dict[str, Signature] = {}
    trusted = args.trusted or suite.root / TRUSTED_FILE
    if args.require_signed is not None:
        signed_by = signers(runs, trusted, args.require_signed or None)
    try:
        source_ids, unknown = present_source_ids(checkout, subject), None
    except SuiteError as error:
        source_ids, unknown = {}, str(error)
    for one in runs:
        recheck(one, checkout, source_ids)
    present = Present(
        contracts=checkout.contracts,
        source_ids=source_ids,
        keys=frozenset(checkout.entries),
        plantable=plantable(checkout, subject),
        unknown=unknown,
        today=today,
    )
    judgement = judge(runs, present, policy)
    setting = Setting(
        runs, policy, subject, suite.root, today, signed_by, trusted, [*warnings, *foreign]
    )
    if args.json:
        print(json.dumps(render_json(judgement, setting), indent=2))
    else:
        print(printable(render_text(judgement, setting)), end="")
    return judgement.exit_code


def _policy(path: Path | None, checkout: Checkout, today: date) -> tuple[Policy, list[Problem]]:
    default = checkout.suite.root / POLICY_FILE
    if path is None and not default.exists():
        return Policy(), []
    return read_policy(path or default, checkout.contracts, today)


def _about(runs: Sequence[Run], checkout: Checkout, subject: str) -> tuple[list[Run], list[str]]:
    """The runs of this suite about `subject`, and which ones are not."""
    kept, warnings = [], []
    for one in runs:
        name, header = one.header.run_id, one.header
        if header.suite != checkout.suite.name:
            warnings.append(
                f"run {name} is not counted: it is of the suite {header.suite}, of which nothing "
                f"is known here; this is {checkout.suite.name}"
            )
        elif not same_subject(checkout.suite, header.subject, subject):
            warnings.append(
                f"run {name} is not counted: it is about {header.subject}, the policy is about "
                f"{subject}"
            )
        else:
            kept.append(one)
    return kept, warnings


def _problems(problems: Sequence[Problem], as_json: bool) -> int:
    if as_json:
        told = [
            {"path": str(p.path), "line": p.line, "what": p.what, "fix": p.fix} for p in problems
        ]
        print(json.dumps({"schema": SCHEMA, "exit_code": _USAGE, "problems": told}, indent=2))
    print(*problems, sep="\n", file=sys.stderr)
    print(f"aprverify: {len(problems)} problems; nothing was judged", file=sys.stderr)
    return _USAGE


def _nothing_required(policy: Policy, checkout: Checkout, as_json: bool) -> int:
    where = policy.path or checkout.suite.root / POLICY_FILE
    what = "no gate is required, so that nothing could fail"
    return _problems([Problem(where, 1, what, "name gates under `required:`")], as_json)


def _refused(what: str, as_json: bool) -> int:
    if as_json:
        print(
            json.dumps({"schema": SCHEMA, "exit_code": verdict.REFUSED, "refused": what}, indent=2)
        )
    print(what, file=sys.stderr)
    return verdict.REFUSED


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"no such day: {text}; write it as in 2027-01-31"
        ) from None
