"""The command line. Each subcommand stands in `aprverify/commands/`; none imports torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from aprverify import __version__
from aprverify.commands import check, evidence, fetch, lint, list_, report, verify
from aprverify.suite import SuiteError, find_suite

_COMMANDS = (verify, lint, list_, check, report, evidence, fetch)
_DESCRIPTION = """\
Say whether an LLM trainer is right, by trying to show that it is wrong.

A typical day:
  aprverify fetch                  get the weights and tokenizers that some claims need
  aprverify verify                 run every claim and its planted defects; ends with a table
  aprverify list INV-TRAIN-007     what is claimed, and by which falsifier
  pytest -k INV-TRAIN-007          run just that
  aprverify check RUN              re-check a recorded run, on any machine
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.suite = find_suite(options.suite)
        return int(options.run(options))
    except SuiteError as error:
        print(f"aprverify: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\naprverify: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aprverify",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aprverify {__version__}")
    parser.add_argument("--suite", default="bundled", help="installed suite (default: bundled)")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
