"""``aprverify lint``: everything wrong with contracts and their bindings, and how to mend it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aprverify.contract.document import DocumentError, read_document
from aprverify.contract.lint import Problem, lint_document, load_suite


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "lint", help="check contracts and their bindings: file, line, what is wrong, how to mend it"
    )
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="only these; default: the whole suite"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print every problem; 0 when there is none, else 1."""
    loaded = load_suite(args.suite)
    problems = loaded.problems
    checked = f"{len(loaded.contracts)} contracts"
    if args.files:
        problems = [p for path in args.files for p in _file(path, loaded.configurations)]
        checked = f"{len(args.files)} files"
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems" if problems else f"{checked}: no problem")
    return 1 if problems else 0


def _file(path: Path, configurations: dict[str, dict[str, Any]]) -> list[Problem]:
    try:
        return lint_document(read_document(path), configurations)
    except DocumentError as error:
        return [Problem(path, error.line, str(error), error.fix)]
