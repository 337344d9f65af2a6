"""Judges one trainer: its files beside the frozen suite, a fresh process, and its rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from aprverify.bisect.frozen import Frozen
from aprverify.bisect.history import HistoryError, Repository
from aprverify.bisect.outcomes import IMPORT, Seen, seen_in
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.evidence.terminal import one_line
from aprverify.plan import Entry
from aprverify.sessions import session_environment, session_options

Placing = Callable[[Path], None]
"""Puts the packages that move into the folder of a trial."""


class CannotPlace(Exception):
    """The trainer's files are not to be had; with the reason."""


def placing(
    repository: Repository, trees: Mapping[str, tuple[str, str]], packages: Sequence[str]
) -> Placing:
    """Puts the packages of a commit in place, whose `trees` are as `Repository.trees` says."""

    def place(folder: Path) -> None:
        for package in packages:
            if package not in trees:
                raise CannotPlace(f"this commit has no {package}/")
            try:
                repository.export(trees[package][1], folder / package)
            except HistoryError as error:
                raise CannotPlace(f"its files are not to be had: {error}") from None

    return place


@dataclass(frozen=True)
class Trials:
    """How a trainer is judged; the same for every commit."""

    frozen: Frozen
    subject: str
    assets: tuple[str, ...]

    def judge(self, place: Placing, entries: Sequence[Entry]) -> dict[str, Seen]:
        """What is seen of each entry, by its key. A flickering one gets a second try."""
        with TemporaryDirectory(prefix="aprverify-bisect-") as scratch:
            folder = Path(scratch).resolve() / "commit"
            self.frozen.compose(folder)
            try:
                place(folder)
            except CannotPlace as reason:
                return {entry.key: Seen("not_run", IMPORT, str(reason)) for entry in entries}
            if faults := self._faults(folder):
                more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
                fault = Seen("broken", IMPORT, one_line(faults[0])[:300] + more)
                return {entry.key: fault for entry in entries}
            seen = self._run(folder, entries, folder.with_name("run-1"))
            again = [entry for entry in entries if seen[entry.key].may_pass]
            return {
                **seen,
                **(self._run(folder, again, folder.with_name("run-2")) if again else {}),
            }

    def _faults(self, folder: Path) -> list[str]:
        report = folder.with_name("faults.json")
        adapter = self.frozen.suite.subject(self.subject).partition(":")[0]
        command = [sys.executable, "-P", "-m", "aprverify.bisect.importable", str(report), adapter]
        done = _finish([*command, *self.frozen.moved], folder)
        if done[0] != 0 or not report.exists():
            return [f"importing it ended the process with status {done[0]}: {_last(done[1])}"]
        return [str(fault) for fault in json.loads(report.read_text())]

    def _run(self, folder: Path, entries: Sequence[Entry], run: Path) -> dict[str, Seen]:
        status, output = _finish(self._command(folder, entries, run), folder)
        try:
            rows = {row.key: row for row in read_run(run).rows}
        except EvidenceRefused:
            rows = {}  # the process died before it could close its run
        lost = Seen("broken", "crash", f"pytest ended with status {status}: {_last(output)}")
        return {e.key: seen_in(rows[e.key]) if e.key in rows else lost for e in entries}

    def _command(self, folder: Path, entries: Sequence[Entry], run: Path) -> list[str]:
        command = [sys.executable, "-P", "-m", "pytest", "-c", str(folder / "pytest.ini")]
        hung = {"faulthandler_timeout": "600", "faulthandler_exit_on_timeout": "true"}
        command += session_options(self.frozen.suite.name, folder, hung)
        # A worker that dies, of memory or of time, then takes no other entry with it.
        command += ["-n", "1", "--dist", "loadgroup"]
        command += ["-q", "--no-header", "--tb=short", "--subject", self.subject]
        command += [part for asset in self.assets for part in ("--asset", asset)]
        command += ["--evidence", str(run)]
        return [*command, *(self._nodeid(folder, entry) for entry in entries)]

    def _nodeid(self, folder: Path, entry: Entry) -> str:
        module = folder / self.frozen.falsifiers / Path(*entry.test.module.split("."))
        return f"{module}.py::{entry.test.function}[{entry.parameter_id}]"


def _finish(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run a command that imports from `folder` first; its exit status and what it said.

    It is a group of its own, so that one interruption ends it with all that it started.
    """
    # Into a file: a pipe stays open as long as anything that the command left behind.
    with TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return process.returncode, output.read()


def _environment(folder: Path) -> Mapping[str, str]:
    # git's own, in a hook or a bisection, are about the checkout that this one leaves alone.
    clean = {k: v for k, v in session_environment().items() if not k.startswith("GIT_")}
    path = [str(folder), *filter(None, [clean.get("PYTHONPATH")])]
    return {**clean, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}


def _last(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return one_line(lines[-1])[:300] if lines else "it said nothing"
