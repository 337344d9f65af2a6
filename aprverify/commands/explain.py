"""``aprverify explain RUN [ID]``: the story of a failure, for whoever is awake."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from aprverify.evidence import verdict
from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.records import Run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.terminal import one_line
from aprverify.explain.refused import in_words
from aprverify.explain.render import render
from aprverify.explain.tell import UnknownName, tell

_USAGE = 2
_ADVISED = ("localize", "bisect")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "explain",
        help="the story of a failure: claim, what was seen, what it looks like, what to run",
        description="Tell what failed in a run, what it looks like, and what to run next; where "
        "nothing failed, what came closest. Exit status 0 whatever the run found: this is a view "
        "and no gate; 2: the run has nothing of that name; 7: a run is refused.",
    )
    parser.add_argument("path", metavar="RUN", type=Path, help="a run's folder or its run.jsonl")
    parser.add_argument(
        "id",
        metavar="ID",
        nargs="?",
        help="contract, gate, invariant, test, or an entry's whole key (default: all failures)",
    )
    parser.add_argument(
        "--evidence",
        metavar="RUN",
        type=Path,
        action="append",
        default=[],
        help="a run, or a folder of runs, whose planted defects the failure is held against too",
    )
    parser.add_argument("--json", action="store_true", help="for a machine instead of a reader")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the story."""
    try:
        found = read_run(args.path)
        evidence = [read_run(path) for path in _runs(args.evidence) if _is_other(path, found)]
    except EvidenceRefused as refusal:
        return _refused(refusal, args.json)
    try:
        story = tell(found, evidence, args.id, _commands())
    except UnknownName as unknown:
        close = get_close_matches(args.id, sorted(unknown.known), 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        what = one_line(f"aprverify: the run has nothing called {args.id}{hint}")
        print(what, file=sys.stderr)
        return _USAGE
    if args.json:
        print(json.dumps(asdict(story), indent=2, allow_nan=False))
    else:
        print(render(story), end="")
    return verdict.OK


def _refused(refusal: EvidenceRefused, as_json: bool) -> int:
    name, words = type(refusal).__name__, in_words(refusal)
    if as_json:
        body = {"refused": name, "means": words, "where": str(refusal)}
        print(json.dumps(body, indent=2))
    print(f"refused ({name}): {refusal}", f"  {words}", sep="\n", file=sys.stderr)
    return verdict.REFUSED


def _runs(paths: Iterable[Path]) -> Iterator[Path]:
    """The runs that are named, or that lie in a folder that is named."""
    for path in paths:
        inside = sorted(path.glob(f"[!.]*/{RUN_FILE}")) if path.is_dir() else []
        yield from [path] if (path / RUN_FILE).exists() or not inside else inside


def _is_other(path: Path, run: Run) -> bool:
    file = path / RUN_FILE if path.is_dir() else path
    return file.resolve() != run.path.resolve()


def _commands() -> frozenset[str]:
    return frozenset(name for name in _ADVISED if find_spec(f"aprverify.commands.{name}"))
