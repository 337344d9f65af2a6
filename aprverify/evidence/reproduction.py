"""The command that runs one entry again, safe to paste: a run may name anything in it."""

from __future__ import annotations

import shlex
from itertools import pairwise

from aprverify.evidence.records import Row, Run


def command(run: Run, row: Row) -> str:
    """A pytest command for a POSIX shell, to be given where the suite's files are."""
    teeth = ["--teeth", "declared"] if row.defect is not None else []
    # After `--` nothing is an option, whatever the run calls its entries.
    return shlex.join(["pytest", *options(run, row), *teeth, "--", row.nodeid])


def options(run: Run, row: Row) -> list[str]:
    """What pytest and `aprverify verify` are told alike: the subject, and files that were given."""
    given = [f"--asset={name}=FILE" for name in given_assets(run, row)]
    return [f"--subject={run.header.subject}", *given]


def given_assets(run: Run, row: Row) -> list[str]:
    """The assets that this entry used and that were named on the command line."""
    words = run.header.command
    named = [after for before, after in pairwise(words) if before == "--asset"]
    named += [word.removeprefix("--asset=") for word in words if word.startswith("--asset=")]
    names = {text.partition("=")[0] for text in named}
    return sorted(names & row.assets.keys())
