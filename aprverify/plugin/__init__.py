"""The pytest plugin. This file only delegates; it is inert where no suite is configured."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from aprverify.contract.lint import Problem
from aprverify.environment import describe_environment
from aprverify.evidence.values import encode
from aprverify.outcomes import Falsified, NotRun, Survived
from aprverify.plan import LANES, TEETH, Entry
from aprverify.planting import PlantingError
from aprverify.plugin import lanes, selection
from aprverify.plugin.attempt import Attempt
from aprverify.plugin.fixtures import assets, case, configuration, measured, subject
from aprverify.plugin.import_watch import ImportWatch
from aprverify.plugin.problems import ProblemItem
from aprverify.plugin.recorder import ROW, TYPED_KEYWORD, Recorder
from aprverify.plugin.requirements import check_requirements
from aprverify.plugin.state import ATTEMPT, STATE, State, build_state
from aprverify.suite import SuiteError

__all__ = ["assets", "case", "configuration", "measured", "subject"]

WATCH = pytest.StashKey[ImportWatch]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the suite."""
    group = parser.getgroup("aprverify", "contract-driven falsification")
    group.addoption("--subject", default="", help="trainer under test: a short name or MODULE:ATTRIBUTE")
    group.addoption("--teeth", choices=TEETH, default="none", help="also plant the declared defects")
    group.addoption("--lane", choices=LANES, default="all", help="run CPU entries, CUDA entries or all")
    group.addoption("--evidence", metavar="DIR", default="", help="write run.jsonl into this new folder")
    group.addoption("--require", action="append", default=[], metavar="DEVICE", help="what must have run")
    group.addoption("--asset", action="append", default=[], metavar="NAME=FILE", help="use this file")
    parser.addini("aprverify_suite", "the suite whose falsifiers this project holds", default="")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Load the suite and make ``-k`` exact."""
    for marker in (
        "falsify(id): the falsification test that an item belongs to",
        "binds(inv): an invariant that the item tests",
        "case(**parameters): the item's point of the matrix",
    ):
        config.addinivalue_line("markers", marker)
    suite_name = config.getini("aprverify_suite")
    if not suite_name:
        return
    try:
        state = build_state(config, suite_name)
    except (SuiteError, PlantingError) as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[STATE] = state
    _rewrite_keyword(config, state)
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(lanes.XdistHooks(state.lane), "aprverify-lanes")
    if not _is_worker(config):
        folder = Path(config.getoption("--evidence")).resolve() if config.getoption("--evidence") else None
        if folder is not None and (folder / "run.jsonl").exists():
            raise pytest.UsageError(f"--evidence {folder}: holds a run already; name a new folder")
        config.pluginmanager.register(Recorder(config, state, folder), "aprverify-recorder")


def _rewrite_keyword(config: pytest.Config, state: State) -> None:
    config.stash[TYPED_KEYWORD] = config.option.keyword
    everything = state.entries
    config.option.keyword, globs = selection.rewrite(config.option.keyword, everything)
    config.stash[selection.GLOBS] = globs


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """``-n auto``: a worker a core for the CPU lane, a worker a GPU otherwise."""
    if not config.getini("aprverify_suite"):
        return None
    return lanes.worker_count(config.getoption("--lane"))


# -- collection ---------------------------------------------------------------------------


def pytest_sessionstart(session: pytest.Session) -> None:
    """Watch for heavy imports while falsifiers are collected."""
    state = session.config.stash.get(STATE, None)
    if state is not None:
        watch = session.config.stash[WATCH] = ImportWatch(state.suite.falsifiers_dir)
        watch.start()


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> list[Any] | None:
    """A falsifier without an entry in this session (another lane, no claim) makes no items."""
    state = collector.config.stash.get(STATE, None)
    if state is None or not name.startswith("falsify_") or not callable(obj):
        return None
    if not collector.path.is_relative_to(state.suite.falsifiers_dir):
        return None
    return None if _entries_of(state, collector.path.stem, name) else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item for each entry of a falsifier."""
    state = metafunc.config.stash.get(STATE, None)
    if state is None or not metafunc.function.__name__.startswith("falsify_"):
        return
    module = metafunc.module.__name__.rpartition(".")[2]
    entries = _entries_of(state, module, metafunc.function.__name__)
    parameters = [pytest.param(e, id=e.parameter_id, marks=_marks(e)) for e in entries]
    metafunc.parametrize("entry", parameters)


def _entries_of(state: State, module: str, function: str) -> list[Entry]:
    return [e for e in state.entries if (e.test.module, e.test.function) == (module, function)]


def _marks(entry: Entry) -> list[pytest.MarkDecorator]:
    marks = [pytest.mark.falsify(id=entry.test.id), pytest.mark.case(**entry.case.parameters)]
    marks += [pytest.mark.binds(inv=invariant) for invariant in entry.test.invariants]
    heavy = [need for need in entry.case.requires if need.startswith("asset:")]
    if heavy:  # entries that share a large file share a worker, under --dist loadgroup
        marks.append(pytest.mark.xdist_group(heavy[0]))
    return marks


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give items the keywords that a rewritten ``-k`` asks for."""
    state = item.config.stash.get(STATE, None)
    if state is None:
        return
    globs = item.config.stash.get(selection.GLOBS, [])
    entry = _entry(item)
    found = selection.keywords(entry, globs) if entry else selection.glob_keywords(item.name, globs)
    item.extra_keyword_matches.update(found)


def _entry(item: pytest.Item) -> Entry | None:
    callspec = getattr(item, "callspec", None)
    entry = callspec.params.get("entry") if callspec else None
    return entry if isinstance(entry, Entry) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Every problem of a contract becomes an item that fails, whatever was selected."""
    state = session.config.stash.get(STATE, None)
    if state is not None and _covers_suite(session.config, state):
        items += [_problem_item(session, state, problem) for problem in state.loaded.problems]


def _covers_suite(config: pytest.Config, state: State) -> bool:
    folder = state.suite.falsifiers_dir
    paths = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return any(folder.is_relative_to(p) or p.is_relative_to(folder) for p in paths)


def _problem_item(session: pytest.Session, state: State, problem: Problem) -> pytest.Item:
    path = problem.path
    inside = path.is_relative_to(state.suite.root)
    name = path.relative_to(state.suite.root).as_posix() if inside else str(path)
    return ProblemItem.from_parent(session, name=f"{name}:{problem.line}", problem=problem)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Collection is over: imports are free again."""
    watch = session.config.stash.get(WATCH, None)
    if watch is not None:
        watch.stop()


# -- running ------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin an attempt; what cannot run here stops before anything is built."""
    entry = _entry(item)
    if entry is None:
        return
    state = item.config.stash[STATE]
    item.stash[ATTEMPT] = Attempt(entry, state.loaded.configurations)
    try:
        check_requirements(entry, state.assets)
    except NotRun as reason:
        item.stash[ATTEMPT].failed("setup", reason)
        pytest.skip(f"NOT RUN: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Turn what a falsifier did into its verdict."""
    attempt = pyfuncitem.stash.get(ATTEMPT, None)
    if attempt is None:
        return (yield)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
    if attempt.plant is not None and attempt.plant_report is not None:
        attempt.plant.collect(attempt.plant_report)
    final = attempt.conclude(_translated(error))
    if isinstance(final, NotRun):
        pytest.skip(f"NOT RUN: {final}")
    if final is not None:
        raise final
    return True


def _translated(error: BaseException | None) -> BaseException | None:
    # Subjects live behind a protocol that aprverify does not import: known by class name.
    if error is not None and type(error).__name__ == "NotSupported":
        return NotRun("subject", str(error), "")
    return error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the row to the last report of an item."""
    report = yield
    attempt = item.stash.get(ATTEMPT, None)
    if attempt is None:
        return report
    if call.excinfo is not None and call.when != "call" and attempt.reason is None:
        _failed_outside(attempt, call)
    if call.excinfo is not None and isinstance(call.excinfo.value, (Falsified, Survived)):
        report.longrepr = _explain(attempt)
    if call.when == "teardown":
        state = item.config.stash[STATE]
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        nodeid = item.nodeid.partition("@")[0]
        row = attempt.row(state.source_id(attempt.entry), "", nodeid, worker)
        payload = {"row": encode(row), "environment": describe_environment()}
        report.user_properties.append((ROW, json.dumps(payload)))
    return report


def _failed_outside(attempt: Attempt, call: pytest.CallInfo[None]) -> None:
    assert call.excinfo is not None
    error = _translated(call.excinfo.value)
    assert error is not None
    attempt.failed(str(call.when), error)


def _explain(attempt: Attempt) -> str:
    entry, test = attempt.entry, attempt.entry.test
    head = f"{str(attempt.outcome).upper()} {entry.key}"
    if attempt.outcome == "survived":
        found = f"{entry.defect} was in force and every claim held: the falsifier has no teeth here"
    else:
        found = attempt.explanation()
    return f"{head}\nrule: {test.rule}\n{found}\nlook at: {test.if_fails}"
