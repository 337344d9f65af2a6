"""The command that runs one entry again, safe to paste: a run may name anything in it."""

from __future__ import annotations

import shlex

from aprverify.evidence.records import Row, Run


def command(run: Run, row: Row) -> str:
    """A pytest command for a POSIX shell, to be given where the suite's files are."""
    teeth = ["--teeth", "declared"] if row.defect is not None else []
    # After `--` nothing is an option, whatever the run calls its entries.
    words = ["pytest", f"--subject={run.header.subject}", *teeth, "--", row.nodeid]
    return shlex.join(words)
