"""``aprverify evidence add RUN`` and ``aprverify evidence index``: what is kept, and its index."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aprverify.campaign.promoted import promoted_campaigns
from aprverify.contract.lint import load_suite
from aprverify.evidence import verdict
from aprverify.evidence.markdown import count
from aprverify.evidence.merge import merge_runs
from aprverify.evidence.promote import NotPromoted, promote, promoted_runs
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.plan import make_plan
from aprverify.planting import load_defects
from aprverify.source_id import current_source_ids
from aprverify.suite import Suite
from aprverify.views.beside import (
    INDEX_FILE,
    differing,
    files_of_index,
    files_of_run,
    files_of_trials,
    write_files,
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand with its two actions."""
    parser = subparsers.add_parser("evidence", help="promote runs and index them")
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="check a run and copy it into the committed evidence")
    add.add_argument("path", metavar="RUN", type=Path, help="a run's folder or its run.jsonl")
    add.add_argument(
        "--interrupted",
        action="store_true",
        help="keep an interrupted run too; what it did not reach stays not run",
    )
    index = actions.add_parser("index", help="write the index of the committed evidence")
    index.add_argument(
        "--check", action="store_true", help="write nothing; fail if it would change"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit status 7 where a run is refused, or the index or a report is not what the runs say."""
    directory: Path = args.suite.evidence_dir
    try:
        if args.action == "add":
            return _add(args.path, args.suite, cut_off=args.interrupted)
        return _check(directory) if args.check else _index(args.suite)
    except (EvidenceRefused, NotPromoted) as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED


def _add(path: Path, suite: Suite, *, cut_off: bool) -> int:
    run = read_run(path)
    current = _current_source_ids(suite, run.header.subject)
    folder = promote(run, suite.evidence_dir, current, cut_off=cut_off)
    _write(suite.evidence_dir)
    print(f"{folder}\nCommit {suite.evidence_dir}.")
    return verdict.OK


def _index(suite: Suite) -> int:
    _write(suite.evidence_dir)
    runs = promoted_runs(suite.evidence_dir)
    merged = [
        merge_runs(
            [run for run in runs if run.header.subject == subject],
            _current_source_ids(suite, subject),
        )
        for subject in sorted({run.header.subject for run in runs}) or [suite.default_subject]
    ]
    stale = count(sum(len(m.stale_keys) for m in merged), "row is stale", "rows are stale")
    unseen = count(sum(len(m.unseen) for m in merged), "entry has no row", "entries have no row")
    print(f"{suite.evidence_dir / INDEX_FILE}\nAs of now {stale}, and {unseen}.")
    return verdict.OK


def _current_source_ids(suite: Suite, subject: str) -> dict[str, str]:
    entries = make_plan(load_suite(suite).contracts, teeth="declared")
    return current_source_ids(suite, entries, suite.subject(subject), load_defects(suite))


def _check(directory: Path) -> int:
    wrong = {file: "aprverify evidence index" for file in differing(directory, _files(directory))}
    for promoted in promoted_runs(directory):
        folder = promoted.path.parent
        for file in differing(folder, files_of_run(promoted)):
            wrong[file] = f"aprverify report {folder}"
    for file, command in wrong.items():
        print(f"{file}: not what the runs say. `{command}` writes it anew.", file=sys.stderr)
    return verdict.REFUSED if wrong else verdict.OK


def _write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_files(directory, _files(directory))


def _files(directory: Path) -> dict[str, str]:
    """What is generated from all that is promoted, by path below the folder."""
    runs, campaigns = promoted_runs(directory), promoted_campaigns(directory)
    return {**files_of_index(runs), **files_of_trials(runs, campaigns)}
