"""What one pytest process knows of the suite: built once in `pytest_configure`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from aprverify.assets import AssetStore
from aprverify.contract.lint import Loaded, load_suite
from aprverify.outcomes import NotRun
from aprverify.plan import Entry, make_plan
from aprverify.planting import PROTOCOL, Defect, call_by_name, load_defects
from aprverify.plugin.attempt import Attempt
from aprverify.source_id import source_id
from aprverify.suite import Suite, find_suite

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
    by_parameter_id: dict[str, Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.by_parameter_id = {entry.parameter_id: entry for entry in self.entries}

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
        start, end = nodeid.find("["), nodeid.rfind("]")
        return self.by_parameter_id.get(nodeid[start + 1 : end]) if start >= 0 else None

    def source_id(self, entry: Entry) -> str:
        """SHA-256 over the files that `entry` depends on."""
        return source_id(self.suite, entry, self.subject_target, dict(self.defects))

    def defect(self, entry: Entry) -> Defect:
        """The defect of a teeth entry.

        Raises:
            NotRun: it patches the bundled trainer, and another subject is under test.
        """
        defect = self.defects[str(entry.defect)]
        bundled = next(iter(self.suite.subjects.values()))
        if defect.kind != PROTOCOL and self.subject_target != bundled:
            detail = f"{defect.id} patches the source of the bundled trainer"
            raise NotRun("subject", detail, "")
        return defect


def build_state(config: pytest.Config, suite_name: str) -> State:
    """Load the suite that the project's configuration names.

    Raises:
        SuiteError: no such suite or subject.
        PlantingError: the defects cannot be loaded; also among the problems of the contracts.
    """
    suite = find_suite(suite_name)
    loaded = load_suite(suite)
    lane, teeth = config.getoption("--lane"), config.getoption("--teeth")
    subject = config.getoption("--subject") or next(iter(suite.subjects))
    overrides = dict(_asset_override(text) for text in config.getoption("--asset"))
    return State(
        suite=suite,
        loaded=loaded,
        entries=make_plan(loaded.contracts, teeth=teeth, lane=lane),
        defects={} if loaded.problems else load_defects(suite),
        subject_name=subject,
        subject_target=suite.subject(subject),
        lane=lane,
        teeth=teeth,
        assets=AssetStore(suite.assets_file, overrides),
    )


def _asset_override(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not Path(path).is_file():
        raise pytest.UsageError(f"--asset {text}: give NAME=FILE, and the file must exist")
    return name, Path(path).resolve()
