"""A command outlives whoever reads its messages, and still reports what cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from trainer import cli
from trainer.commands import devices

def run(options):
    for number in range(20000):
        print("line", number)
        print("message", number, file=sys.stderr)
    Path("marker").write_text("done")
    return 0

devices.run = run
sys.argv = ["aprtrain", "devices"]
sys.exit(cli.main())
"""


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a talkative command under a shell with the given redirections."""

    def run(redirections: str) -> subprocess.CompletedProcess[str]:
        script = f'"$0" -c "$1" {redirections}; echo rc=$? >&9'
        words = ["bash", "-c", f"exec 9>rc; {{ {script}; }}"]
        return subprocess.run(
            [*words, sys.executable, PROGRAM],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "redirections",
    ["2>&-", "2>/dev/full", ">&-", "<&- >&- 2>&-", "2>&1 | head -1", "| head -1", "2> >(true)"],
)
def test_lost_reader_changes_nothing(
    shell: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path, redirections: str
) -> None:
    """Streams closed, full or left by their reader: the command does its work, without a word."""
    done = shell(redirections)
    assert (tmp_path / "marker").read_text() == "done", done.stderr
    assert "rc=0" in (tmp_path / "rc").read_text()
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_full_disk_behind_stdout_is_reported_once(
    shell: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """What was asked for on stdout cannot be written: exit 3, one line, nothing at exit."""
    done = shell(">/dev/full 2>errors")
    assert "rc=3" in (tmp_path / "rc").read_text(), done.stderr
    errors = (tmp_path / "errors").read_text()
    assert errors.count("aprtrain: CONFIGURATION: ") == 1 and "Traceback" not in errors
