"""The fixtures that a falsifier may ask for: subject, case, measured, series and assets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aprverify.contract.model import Case
from aprverify.outcomes import Broken
from aprverify.planting import call_by_name, planted
from aprverify.plugin.requirements import required_asset
from aprverify.plugin.state import ATTEMPT, STATE


@pytest.fixture
def case(entry: Any) -> Case:
    """The point of the test's matrix: ``case.device``, ``case.dtype``, ``case.arch``, …"""
    result: Case = entry.case
    return result


@pytest.fixture
def subject(entry: Any, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The subject under test, inside the entry's defect if it has one."""
    state = request.config.stash[STATE]
    attempt = request.node.stash[ATTEMPT]
    if state.left_behind:
        raise Broken(f"{state.left_behind} left something behind in this process")
    if entry.defect is None:
        yield state.subject
        return
    defect = state.defect(entry)
    clean = state.canary
    report = tmp_path / "plant-effects.jsonl"
    with planted(state.suite, defect, state.subject, report) as plant:
        attempt.plant, attempt.plant_report = plant, report
        yield plant.subject
    attempt.canary = "same" if call_by_name(state.suite.canary) == clean else "different"
    if attempt.canary == "different":
        state.left_behind = defect.id
        raise Broken(f"{defect.id} left something behind: the canary measures differently")


@pytest.fixture
def measured(entry: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Deliver what was measured, once: ``measured(loss=loss)`` evaluates the claims."""
    measure: Callable[..., None] = request.node.stash[ATTEMPT].measured
    return measure


@pytest.fixture
def series(entry: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Record how something went: ``series("loss", points, x="optimizer step", y="loss")``."""
    record: Callable[..., None] = request.node.stash[ATTEMPT].series
    return record


@pytest.fixture
def assets(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """``assets(name)`` is the verified file of a registered asset."""
    return partial(required_asset, request.config.stash[STATE].assets)


@pytest.fixture
def configuration(entry: Any, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The contract-side configuration that ``case.arch`` names, by field."""
    return dict(request.config.stash[STATE].loaded.configurations[entry.case.arch])
