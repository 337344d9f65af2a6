"""The command line, `aprtrain`: parse, dispatch, and turn every refusal into one line and a code.

A subcommand is a module of `commands`; torch is imported only inside its `run`, so that a wrong
command fails in milliseconds.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from trainer.errors import EXIT_CODES, TrainerError, UsageError

COMMANDS = ("prepare", "pretrain", "inspect", "export", "generate", "devices")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code of `errors.EXIT_CODES`."""
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        options = _parser().parse_args(words)
        options.arguments = words  # for the record, and for the command that resumes a run
        return int(options.run(options))
    except TrainerError as error:
        return fail(error.status, str(error))
    except OSError as error:
        return fail("CONFIGURATION", f"{error}; check the path, its permissions and the disk")
    except KeyboardInterrupt:
        return fail("INTERRUPTED", "interrupted")


def fail(status: str, message: str) -> int:
    """Print why the command ended, on one line of stderr; returns its exit code."""
    print(f"aprtrain: {status}: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_CODES[status]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="aprtrain", description="Pre-train Llama-family decoders.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for name in COMMANDS:
        importlib.import_module(f"trainer.commands.{name}").add_parser(commands)
    return parser
