"""What one pytest process knows of the suite: built once in `pytest_configure`."""

from __future__ import annotations

import importlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from aprverify.assets import AssetStore
from aprverify.contract.lint import Loaded, load_suite
from aprverify.evidence.records import TooDear
from aprverify.outcomes import NotRun
from aprverify.plan import Entry, make_plan
from aprverify.planting import PROTOCOL, Defect, PlantingError, call_by_name, load_defects
from aprverify.plugin.attempt import Attempt
from aprverify.source_id import source_id
from aprverify.suite import Suite, find_suite
from aprverify.too_dear import DearEntries, read_dear_entries

STATE = pytest.StashKey["State"]()
ATTEMPT = pytest.StashKey[Attempt]()


@dataclass
class State:
    """Suite, contracts and plan of this process."""

    suite: Suite
    loaded: Loaded
    entries: list[Entry]
    defects: Mapping[str, Defect]
    subject_name: str
    subject_target: str
    lane: str
    teeth: str
    assets: AssetStore
    too_dear: TooDear | None = None
    """What was left out of the plan for its cost."""
    left_behind: str = ""
    """The defect after whose removal the canary measured differently, if there was one."""

    @cached_property
    def by_parameter_id(self) -> Mapping[str, Entry]:
        """The entry behind what stands in the brackets of a node id."""
        return {entry.parameter_id: entry for entry in self.entries}

    @cached_property
    def by_falsifier(self) -> Mapping[tuple[str, str], list[Entry]]:
        """The entries of each (module, function), in order."""
        found = defaultdict(list)
        for entry in self.entries:
            found[entry.test.module, entry.test.function].append(entry)
        return dict(found)

    @cached_property
    def subject(self) -> Any:
        """The subject, built on first use."""
        module, _, attribute = self.subject_target.partition(":")
        return getattr(importlib.import_module(module), attribute)()

    @cached_property
    def canary(self) -> str:
        """The clean measurement that must come out the same after every defect."""
        return str(call_by_name(self.suite.canary))

    def entry_of(self, nodeid: str) -> Entry | None:
        """The entry that a pytest node id stands for."""
        start, end = nodeid.rfind("["), nodeid.rfind("]")
        return self.by_parameter_id.get(nodeid[start + 1 : end]) if start >= 0 else None

    def source_id(self, entry: Entry) -> str:
        """SHA-256 over the files that `entry` depends on."""
        return source_id(self.suite, entry, self.subject_target, self.defects)

    def defect(self, entry: Entry) -> Defect:
        """The defect of a teeth entry.

        Raises:
            NotRun: it patches the bundled trainer, and another subject is under test.
            PlantingError: there is no such defect.
        """
        defect = self.defects.get(str(entry.defect))
        if defect is None:
            raise PlantingError(f"no defect is called {entry.defect!r}; see `aprverify lint`")
        bundled = self.suite.subjects[self.suite.default_subject]
        if defect.kind != PROTOCOL and self.subject_target != bundled:
            detail = f"{defect.id} patches the source of the bundled trainer"
            raise NotRun("subject", detail, "")
        return defect


def build_state(config: pytest.Config, suite: Suite) -> State:
    """Load a suite's contracts and plan what this session runs.

    Raises:
        SuiteError: no such subject.
        AssetError: the registry of assets cannot be read.
    """
    loaded = load_suite(suite)
    lane, teeth = config.getoption("--lane"), config.getoption("--teeth")
    entries = make_plan(loaded.contracts, teeth=teeth, lane=lane)
    dear = _dear(config.getoption("--too-dear"))
    subject = config.getoption("--subject") or suite.default_subject
    overrides = dict(_asset_override(text) for text in config.getoption("--asset"))
    return State(
        suite=suite,
        loaded=loaded,
        entries=[entry for entry in entries if entry.key not in dear.keys],
        defects=_defects(suite),
        subject_name=subject,
        subject_target=suite.subject(subject),
        lane=lane,
        teeth=teeth,
        assets=AssetStore(suite.assets_file, overrides),
        too_dear=dear.among(entry.key for entry in entries),
    )


def state_of_worker(suite_name: str, subject: str, assets: Iterable[str]) -> State:
    """The same for a process that runs falsifiers without pytest; `assets`: ``NAME=FILE`` each.

    Raises:
        SuiteError: no such suite or subject.
    """
    suite = find_suite(suite_name)
    loaded = load_suite(suite)
    pairs = (text.partition("=") for text in assets)
    return State(
        suite=suite,
        loaded=loaded,
        entries=make_plan(loaded.contracts, teeth="none"),
        defects=load_defects(suite),
        subject_name=subject,
        subject_target=suite.subject(subject),
        lane="all",
        teeth="none",
        assets=AssetStore(suite.assets_file, {n: Path(p).resolve() for n, _, p in pairs}),
    )


def _defects(suite: Suite) -> Mapping[str, Defect]:
    try:
        return load_defects(suite)
    except PlantingError:
        return {}  # the linter has met the same error: it is one of the problems


def _dear(path: str) -> DearEntries:
    if not path:
        return DearEntries(math.inf, frozenset())
    try:
        return read_dear_entries(Path(path))
    except (OSError, ValueError, LookupError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise pytest.UsageError(
            f"--too-dear {path}: no list of entries ({what}); `aprverify verify --dearest` makes it"
        ) from None


def _asset_override(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not Path(path).is_file():
        raise pytest.UsageError(f"--asset {text}: give NAME=FILE, and the file must exist")
    return name, Path(path).resolve()
