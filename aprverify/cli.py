"""The command line. Each subcommand stands in `aprverify/commands/`; none imports torch.

Whatever goes wrong here must not end with exit status 1, which says that a claim was falsified.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from aprverify import __version__
from aprverify.commands import (
    bisect,
    campaign,
    check,
    diff,
    evidence,
    explain,
    fetch,
    gate,
    history,
    lint,
    list_,
    localize,
    merge,
    mutants,
    probe,
    recover,
    report,
    show,
    sign,
    teeth,
    tolerances,
    verify,
)
from aprverify.evidence import verdict
from aprverify.suite import SuiteError, find_suite

_COMMANDS = (
    verify, lint, list_, show, check, report, evidence, gate, merge, recover, fetch, diff, history,
    explain, localize, bisect, probe, teeth, mutants, campaign, tolerances, sign,
)  # fmt: skip
_BROKEN_PIPE = 141
_ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EACCES: "get access to it, or name another place",
    errno.EPERM: "get access to it, or name another place",
    errno.EROFS: "name a place that can be written to",
    errno.EEXIST: "name another place",
}
_DESCRIPTION = """\
Try to show that an LLM trainer is wrong, and record what held.

A typical day:
  aprverify fetch                  get the weights and tokenizers that some claims need
  aprverify verify                 run every claim and its planted defects; ends with a table
  aprverify list INV-TRAIN-007     what is claimed, and by which falsifier
  pytest -k INV-TRAIN-007          run just that
  aprverify explain RUN            what failed, what it looks like, how to see it again
  aprverify check RUN              re-check a recorded run, on any machine
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if probe.is_asked_for(words):
        return probe.for_git(lambda: _main(words))
    return _main(words)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        # Lanes are started as `python -m pytest`, which finds subjects in the working folder too.
        if (folder := os.getcwd()) not in sys.path:
            sys.path.append(folder)
        options.suite = find_suite(options.suite)
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except SuiteError as error:
        print(f"aprverify: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\naprverify: stopped", file=sys.stderr)
        return verdict.INTERRUPTED
    except BrokenPipeError:
        # As shells report a reader that had enough, such as `head`.
        _finish_output()
        return _BROKEN_PIPE
    except OSError as error:
        _finish_output()
        place = error.filename or "its output, or a process that it starts"
        advice = _ADVICE.get(error.errno or 0, "mend that")
        what = error.strerror or str(error)
        print(f"aprverify: {place}: {what}; {advice}, and run it again", file=sys.stderr)
        return verdict.BROKEN
    except Exception:
        traceback.print_exc()
        print("aprverify: a bug of aprverify or of the suite; please report it", file=sys.stderr)
        return verdict.BROKEN


def _finish_output() -> None:
    """Keep the interpreter from failing once more, on its way out, over what cannot be written."""
    with suppress(OSError):
        sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
