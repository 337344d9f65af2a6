"""``aprverify merge RUN... --out DIR``: lanes and shards of one checkout become one run."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aprverify.contract.lint import load_suite
from aprverify.evidence import verdict
from aprverify.evidence.join import Joined, NotOneRun, join_runs
from aprverify.evidence.markdown import count
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.plan import make_plan
from aprverify.suite import Suite
from aprverify.views.beside import files_of_run, write_files

_USAGE = 2
_SHOWN = 10
_EXIT_CODES = """\
exit codes: 0 merged, with or without gaps (`aprverify gate` says which of them matter); 2 usage, or
runs that are not of one checkout, subject and version; 4 a file could not be written; 7 a run is
refused as evidence; 9 merged, and verdicts about the same files differ: the worse ones were kept

Signatures of the merged runs do not carry over: sign the new one."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "merge",
        help="make one run of lanes and shards of one checkout",
        description="Write one run from several of the same checkout, and name what is missing.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="RUN", type=Path, help="a run's folder or its run.jsonl"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder; its name is the run id"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge, and say what was missing or contradictory; returns one of the exit codes above."""
    folder: Path = args.out.resolve()
    if folder.exists():
        print(f"aprverify: {folder} exists; name a new folder", file=sys.stderr)
        return _USAGE
    try:
        runs = [read_run(path) for path in args.paths]
        joined = _merge(runs, folder, args.suite)
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    except NotOneRun as reason:
        print(
            f"aprverify: these are not one run: {reason}. Give them to `aprverify gate` together, "
            "or merge runs of one checkout only.",
            file=sys.stderr,
        )
        return _USAGE
    _tell(joined)
    print(folder)
    return verdict.CONFLICT if joined.conflicts else verdict.OK


def _merge(runs: Sequence[Run], folder: Path, suite: Suite) -> Joined:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".merging-") as scratch:
        inside = Path(scratch) / folder.name
        joined = join_runs(runs, inside, _planned(runs, suite))
        write_files(inside, files_of_run(read_run(inside)))
        shutil.move(inside, folder)
    return joined


def _planned(runs: Sequence[Run], suite: Suite) -> frozenset[str] | None:
    """The keys of all entries, where the contracts here are the very ones of the runs."""
    contracts = load_suite(suite).contracts
    here = {c.id: hashlib.sha256(c.path.read_bytes()).hexdigest() for c in contracts}
    if any({c.id: c.sha256 for c in run.contracts} != here for run in runs):
        return None
    return frozenset(entry.key for entry in make_plan(contracts, teeth="declared"))


def _tell(joined: Joined) -> None:
    for name in joined.repeated:
        print(f"run {name} was given twice; it counts once", file=sys.stderr)
    for key, outcomes in joined.conflicts.items():
        print(
            f"conflict: {key}: {' and '.join(outcomes)} about the same files; the worse was kept",
            file=sys.stderr,
        )
    if joined.gaps:
        gaps = count(len(joined.gaps), "planned entry has", "planned entries have")
        print(f"{gaps} no row:", file=sys.stderr)
        for gap in joined.gaps[:_SHOWN]:
            print(f"  {gap}", file=sys.stderr)
        if len(joined.gaps) > _SHOWN:
            print(f"  and {len(joined.gaps) - _SHOWN} more", file=sys.stderr)
