"""The command line, `aprtrain`: parse, dispatch, and turn every refusal into one line and a code.

A subcommand is a module of `commands`; torch is imported only inside its `run`, so that a wrong
command fails in milliseconds.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from trainer import streams
from trainer.errors import EXIT_CODES, TrainerError, UsageError

COMMANDS = ("prepare", "pretrain", "inspect", "export", "generate", "devices")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code of `errors.EXIT_CODES`."""
    try:
        if arguments is None:
            streams.secure()
        words = sys.argv[1:] if arguments is None else list(arguments)
        options = _parser().parse_args(words)
        options.arguments = words  # for the record, and for the command that resumes a run
        code = int(options.run(options))
        sys.stdout.flush()  # while a full disk can still be reported
        return code
    except TrainerError as error:
        return fail(error.status, str(error))
    except OSError as error:
        return fail("CONFIGURATION", f"{error}; check the path, its permissions and the disk")
    except MemoryError as error:
        return fail("OUT_OF_MEMORY", f"this machine has no memory left for the command: {error}")
    except KeyboardInterrupt:
        return fail("INTERRUPTED", "interrupted")


def fail(status: str, message: str) -> int:
    """Print why the command ended, on one line of stderr; returns its exit code."""
    rank = os.environ.get("RANK") if "WORLD_SIZE" in os.environ else None
    speaker = "" if rank is None else f"rank {rank}: "
    print(f"aprtrain: {speaker}{status}: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_CODES[status]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="aprtrain", description="Pre-train Llama-family decoders.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for name in COMMANDS:
        importlib.import_module(f"trainer.commands.{name}").add_parser(commands)
    return parser
