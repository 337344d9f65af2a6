"""The pytest plugin. This file only delegates; it is inert where no suite is configured."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from aprverify.assets import AssetError
from aprverify.contract.model import case_id
from aprverify.environment import describe_environment
from aprverify.evidence.reader import RUN_FILE
from aprverify.evidence.values import encode
from aprverify.outcomes import NotRun
from aprverify.plan import LANES, TEETH, Entry, make_plan
from aprverify.planting import PROTOCOL, call_if_named
from aprverify.plugin import lanes, selection, wording
from aprverify.plugin.attempt import Attempt
from aprverify.plugin.fixtures import assets, case, configuration, measured, series, subject
from aprverify.plugin.import_watch import ImportWatch
from aprverify.plugin.problems import problem_items
from aprverify.plugin.recorder import ROW, TYPED_KEYWORD, Recorder
from aprverify.plugin.requirements import check_requirements
from aprverify.plugin.state import ATTEMPT, STATE, State, build_state
from aprverify.stopping import stop_at_sigterm
from aprverify.suite import Suite, SuiteError, find_suite

__all__ = ["assets", "case", "configuration", "measured", "series", "subject"]

WATCH = pytest.StashKey[ImportWatch]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the suite."""
    group = parser.getgroup("aprverify", "contract-driven falsification")
    add = group.addoption
    add("--subject", default="", help="trainer under test: a short name or MODULE:ATTRIBUTE")
    add("--teeth", choices=TEETH, default="none", help="also plant the declared defects")
    add("--lane", choices=LANES, default="all", help="run CPU entries, CUDA entries or all")
    add("--shared-cores", action="store_true", help="another lane takes half of the cores")
    add("--too-dear", metavar="FILE", default="", help="leave out the entries listed there")
    add("--evidence", metavar="DIR", default="", help="write run.jsonl into this new folder")
    add("--require", action="append", default=[], metavar="DEVICE", help="what must have run")
    add("--asset", action="append", default=[], metavar="NAME=FILE", help="use this file")
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
    config.add_cleanup(stop_at_sigterm())
    try:
        suite = find_suite(suite_name)
        config.stash[WATCH] = _start_watch(config, suite)
        state = build_state(config, suite)
    except (SuiteError, AssetError) as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[STATE] = state
    _rewrite_keyword(config, state)
    # Whatever name xdist goes by: as an entry point it is "xdist", loaded by -p "xdist.plugin".
    hooks = lanes.XdistHooks(state.lane, shared=config.getoption("--shared-cores"))
    config.pluginmanager.register(hooks, "aprverify-lanes")
    if not _is_worker(config):
        folder = _evidence_folder(config)
        config.pluginmanager.register(Recorder(config, state, folder), "aprverify-recorder")


def _start_watch(config: pytest.Config, suite: Suite) -> ImportWatch:
    own = suite.package.partition(".")[0]
    watch = ImportWatch(suite.falsifiers_dir, [name for name in suite.sources if name != own])
    watch.start()
    config.add_cleanup(watch.stop)
    return watch


def _rewrite_keyword(config: pytest.Config, state: State) -> None:
    config.stash[TYPED_KEYWORD] = config.option.keyword
    # An id of the other lane, or of teeth that were not asked for, is known all the same.
    everything = make_plan(state.loaded.contracts, teeth="declared")
    complete = not state.loaded.problems
    config.option.keyword, globs = selection.rewrite(
        config.option.keyword, everything, complete=complete
    )
    config.stash[selection.GLOBS] = globs


def _evidence_folder(config: pytest.Config) -> Path | None:
    if not config.getoption("--evidence"):
        return None
    folder = Path(config.getoption("--evidence")).resolve()
    if (folder / RUN_FILE).exists():
        raise pytest.UsageError(f"--evidence {folder}: holds a run already; name a new folder")
    return folder


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """``-n auto``: what `lanes.worker_count` says of the lane.

    Asked first: xdist itself answers with the number of cores, and the first answer counts.
    """
    if not config.getini("aprverify_suite"):
        return None
    shared = config.getoption("--shared-cores")
    return lanes.worker_count(config.getoption("--lane"), shared=shared)


# -- collection ---------------------------------------------------------------------------


def pytest_pycollect_makeitem(
    collector: pytest.Collector, name: str, obj: object
) -> list[Any] | None:
    """A falsifier without an entry in this session (another lane, no claim) makes no items."""
    state = collector.config.stash.get(STATE, None)
    if state is None or not _is_falsifier(state, collector.path, name) or not callable(obj):
        return None
    return None if (collector.path.stem, name) in state.by_falsifier else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item for each entry of a falsifier."""
    state = metafunc.config.stash.get(STATE, None)
    path, name = metafunc.definition.path, metafunc.function.__name__
    if state is None or not _is_falsifier(state, path, name):
        return
    entries = state.by_falsifier[path.stem, name]
    parameters = [pytest.param(e, id=e.parameter_id, marks=_marks(state, e)) for e in entries]
    metafunc.parametrize("entry", parameters)


def _is_falsifier(state: State, path: Path, name: str) -> bool:
    return name.startswith("falsify_") and path.is_relative_to(state.suite.falsifiers_dir)


def _marks(state: State, entry: Entry) -> list[pytest.MarkDecorator]:
    marks = [pytest.mark.falsify(id=entry.test.id), pytest.mark.case(**entry.case.parameters)]
    marks += [pytest.mark.binds(inv=invariant) for invariant in entry.test.invariants]
    # Under --dist loadgroup they share a worker.
    if group := _group(state, entry):
        marks.append(pytest.mark.xdist_group(group))
    return marks


def _group(state: State, entry: Entry) -> str | None:
    """What makes entries best run by one worker, one after the other.

    That is a large file; or else what they make once and share, for which another worker would
    only wait: the run that their cases name, or whatever a test needs for one case. A source defect
    changes the trainer, and shares nothing.
    """
    heavy = [need for need in entry.case.requires if need.startswith("asset:")]
    if heavy:
        return heavy[0]
    defect = state.defects.get(str(entry.defect))
    if defect is not None and defect.kind != PROTOCOL:
        return None
    named = {n: v for n, v in entry.case.parameters.items() if n in ("run", "arch", "device")}
    return case_id(named) if "run" in named else f"{entry.test.id},{entry.case.id}"


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
        items += problem_items(session, state.loaded.problems, state.suite.root)


def _covers_suite(config: pytest.Config, state: State) -> bool:
    folder = state.suite.falsifiers_dir
    paths = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return any(folder.is_relative_to(p) or p.is_relative_to(folder) for p in paths)


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
        item.stash[ATTEMPT].assets = check_requirements(entry, state.assets)
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
    final = attempt.conclude(error)
    if isinstance(final, NotRun):
        pytest.skip(f"NOT RUN: {final}")
    if final is not None:
        raise final
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Give back what the entry held, after its fixtures have let go of it."""
    try:
        return (yield)
    finally:
        if item.stash.get(ATTEMPT, None) is not None:
            call_if_named(item.config.stash[STATE].suite.after_entry)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let each report agree with the row, and attach the row to the last one."""
    report = yield
    attempt = item.stash.get(ATTEMPT, None)
    if attempt is None:
        return report
    error = call.excinfo.value if call.excinfo is not None else None
    if error is not None and attempt.reason is None and not _concluded(attempt, call):
        attempt.failed(str(call.when), error)
    wording.agree(report, attempt, error)
    if call.when == "teardown":
        report.user_properties.append((ROW, _payload(item, attempt)))
    return report


def _concluded(attempt: Attempt, call: pytest.CallInfo[None]) -> bool:
    return call.when == "call" and attempt.outcome is not None


def _payload(item: pytest.Item, attempt: Attempt) -> str:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    source = item.config.stash[STATE].source_id(attempt.entry)
    row = attempt.row(source, "", item.nodeid.partition("@")[0], worker)
    return json.dumps({"row": encode(row), "environment": describe_environment()})


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, str] | None:
    """The outcome, where pytest would say PASSED or FAILED."""
    return wording.status(report)
