"""The controller's side: collects the rows, accounts for every entry, writes run.jsonl.

What was planned is taken from the contracts, not from what pytest collected: with a module that
fails to import, counting collected items would say that all went well with its cases gone.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from aprverify import __version__
from aprverify.environment import describe_commit, describe_environment
from aprverify.evidence.describe import describe_contract
from aprverify.evidence.reader import RUN_FILE
from aprverify.evidence.writer import RunWriter, utc_now
from aprverify.plan import Entry
from aprverify.plugin.attempt import empty_row
from aprverify.plugin.state import State
from aprverify.source_id import package_sha256

ROW = "aprverify_row"
_LOST_SHOWN = 5
_FAILED = ("falsified", "survived", "broken", "inconclusive")
TYPED_KEYWORD = pytest.StashKey[str]()


class Recorder:
    """Gathers one row for every planned entry. Lives in the controller, or the only process."""

    def __init__(self, config: pytest.Config, state: State, run_folder: Path | None) -> None:
        self._config = config
        self._state = state
        self._folder = run_folder
        self._writer: RunWriter | None = None
        self._nodeids: dict[str, str] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        self._planned: dict[str, Entry] = {}
        self._unimportable: set[str] = set()
        self._outcomes: Counter[str] = Counter()

    # -- what was planned -----------------------------------------------------------------

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember modules that could not be collected: what they hold was never selected from."""
        if not report.passed:
            self._unimportable.add(Path(report.nodeid.partition("::")[0]).stem)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """The plan is known: open the run. Under xdist only the workers collect."""
        if not self._config.option.collectonly:
            self._collected([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """The same, told by a worker."""
        self._collected(list(ids))

    def _collected(self, nodeids: list[str]) -> None:
        """The items that were selected; the first worker to report decides."""
        if self._planned:
            return
        for nodeid in nodeids:
            entry = self._state.entry_of(nodeid)
            if entry is not None:
                self._planned[entry.key] = entry
                self._nodeids[entry.key] = nodeid.partition("@")[0]
        # Nobody can say what a selection would have taken of a module that cannot be imported.
        complete, lost = self._complete(), self._unimportable
        for entry in self._state.entries:
            if complete or entry.test.module in lost:
                self._planned[entry.key] = entry
        if self._planned:
            self._open()

    def _complete(self) -> bool:
        """Whether nothing was deselected: every entry of the plan was asked for."""
        option = self._config.option
        narrowed = option.keyword or option.markexpr or option.deselect or option.maxfail
        narrowed = narrowed or option.ignore or option.ignore_glob
        narrowed = narrowed or self._state.too_dear
        narrowed = narrowed or getattr(option, "lf", False) or getattr(option, "stepwise", False)
        folder = self._state.suite.falsifiers_dir
        whole = any(Path(arg).resolve() in (folder, *folder.parents) for arg in self._config.args)
        return whole and not narrowed

    def _open(self) -> None:
        if self._folder is None:
            return
        self._writer = RunWriter(self._folder / RUN_FILE)
        self._writer.header(self._header())
        for contract in self._state.loaded.contracts:
            self._writer.contract(describe_contract(contract, self._state.suite.root))

    def _header(self) -> dict[str, Any]:
        state, config = self._state, self._config
        commit, dirty = describe_commit(state.suite.root)
        assert self._folder is not None
        return {
            "run_id": self._folder.name,
            "started": utc_now(),
            "command": ["pytest", *map(str, config.invocation_params.args)],
            "suite": state.suite.name,
            "subject": state.subject_name,
            "selection": {
                "keyword": config.stash.get(TYPED_KEYWORD, ""),
                "markers": config.option.markexpr or "",
                "paths": [self._relative(argument) for argument in config.args],
                "lane": state.lane,
                "teeth": state.teeth,
                "complete": self._complete(),
                **({"too_dear": asdict(state.too_dear)} if state.too_dear else {}),
            },
            "require": list(config.getoption("--require")),
            "source": {
                "commit": commit,
                "dirty": dirty,
                "aprverify_version": __version__,
                "aprverify_sha256": package_sha256(Path(__file__).resolve().parent.parent),
            },
            "planned": len(self._planned),
        }

    def _relative(self, argument: str) -> str:
        name, separator, rest = argument.partition("::")
        path, root = Path(name).resolve(), self._state.suite.root
        if not path.is_relative_to(root):
            return argument
        return path.relative_to(root).as_posix() + separator + rest

    # -- what came back -------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the row that a worker attached, or account for a worker that died."""
        if report.when == "teardown":
            for name, value in report.user_properties:
                if name == ROW:
                    payload = json.loads(str(value))
                    self._keep(payload["row"], payload["environment"])
        elif report.when not in ("setup", "call"):
            self._crashed(report)

    def _crashed(self, report: pytest.TestReport) -> None:
        entry = self._state.entry_of(report.nodeid)
        # A worker that dies between two items is blamed on the one that had finished; that one
        # keeps its verdict, and the item that was about to start is missing at the end instead.
        if entry is not None and entry.key not in self._rows:
            detail = "the worker process died: crash, out of memory or time limit"
            self._account(entry, "broken", "crash", detail)

    def _account(
        self, entry: Entry, outcome: str, kind: str, detail: str, remedy: str = ""
    ) -> None:
        reason = {"kind": kind, "detail": detail, "remedy": remedy}
        nodeid = self._nodeids.get(entry.key, "")
        source = self._state.source_id(entry)
        row = empty_row(entry, outcome, reason, source, "", nodeid)
        self._keep(row, describe_environment())

    def _keep(self, row: dict[str, Any], environment: dict[str, Any]) -> None:
        if row["key"] in self._rows:
            return  # an entry has one verdict, its first: running it again until it holds is no way
        self._rows[row["key"]] = row
        self._outcomes[row["outcome"]] += 1
        if self._writer is not None:
            row["environment"] = self._writer.environment(environment)
            self._writer.row(row)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close the run; a session in which nothing reached a verdict is no success."""
        if self._config.option.collectonly:
            return
        stopped = session.shouldfail or session.shouldstop
        self._finish(exitstatus == pytest.ExitCode.INTERRUPTED or bool(stopped))
        if exitstatus == pytest.ExitCode.OK and any(self._outcomes[o] for o in _FAILED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif exitstatus == pytest.ExitCode.OK and self._outcomes and not self._ran:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """One line of our own outcomes: pytest's categories cannot tell them apart."""
        if not self._outcomes:
            return
        counts = ", ".join(f"{n} {o.replace('_', ' ')}" for o, n in sorted(self._outcomes.items()))
        terminalreporter.write_line(f"aprverify: {counts}")
        if not self._ran:
            terminalreporter.write_line("aprverify: nothing reached a verdict: this is no success")
        for row in self._lost[:_LOST_SHOWN]:
            line = f"aprverify: {row['outcome']} {row['key']}: {row['reason']['detail']}"
            terminalreporter.write_line(line)
        if len(self._lost) > _LOST_SHOWN:
            rest = len(self._lost) - _LOST_SHOWN
            terminalreporter.write_line(f"aprverify: and {rest} more that never came back")

    def _finish(self, interrupted: bool) -> None:
        """Account for what never came back, then close the run."""
        for key, entry in self._planned.items():
            if key in self._rows:
                continue
            if interrupted:
                detail = "the session was stopped"
                self._account(entry, "not_run", "interrupted", detail, "run it again")
            else:
                detail = "no row came back: its module failed to import, or its worker was lost"
                self._account(entry, "broken", "missing", detail)
        if self._writer is not None:
            self._writer.footer(interrupted)

    @property
    def _ran(self) -> int:
        return sum(self._outcomes[o] for o in ("held", "falsified", "caught", "survived"))

    @property
    def _lost(self) -> list[dict[str, Any]]:
        return [row for row in self._rows.values() if row["worker"] == "controller"]
