"""Runs one falsifier while the suite's own observer stands between it and its subject.

What looks at tensors lives in the suite, in its module ``localization.session``, reached by name:
``observe(subject, constants)`` returns the subject to hand to the falsifier and an observer,
``account(observer)`` what that one saw, ``compare(run, run)`` where two run directories part.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aprverify.assets import AssetStore
from aprverify.contract.lint import Loaded
from aprverify.plan import Entry
from aprverify.planting import Defect, Plant, planted
from aprverify.plugin.attempt import Attempt
from aprverify.plugin.in_process import call_falsifier
from aprverify.plugin.requirements import check_requirements
from aprverify.suite import Suite, SuiteError

_SESSION = "localization.session"
FACTORS = ("eager_factor", "attention_factor", "gain_factor")
OPTIMIZER = ("beta1", "beta2", "eps", "decay", "clip")


@dataclass(frozen=True)
class Localized:
    """What one run of a falsifier showed.

    Attributes:
        entry: test, case and defect.
        outcome: of the claims, as a run would have it.
        detail: each comparison that does not hold, or why nothing was compared.
        in_force: whether the planted defect changed anything; True without one.
        findings: plain mappings, causes first: ``sentence``, ``where``, ``fault``, …
        by_depth: (depth, error ÷ bound) by phase.
        notes: what could not be looked at, and why.
        looked: whether anything was looked at.
    """

    entry: Entry
    outcome: str
    detail: str
    in_force: bool
    findings: list[dict[str, Any]]
    by_depth: dict[str, list[tuple[int, float]]]
    notes: list[str]
    looked: bool


def session_of(suite: Suite) -> Any:
    """The suite's module that looks at tensors.

    Raises:
        SuiteError: it has none.
    """
    name = f"{suite.package}.{_SESSION}"
    try:
        found = find_spec(name)
    except ImportError:
        found = None
    if found is None:
        raise SuiteError(f"suite {suite.name} cannot localize: it has no module {name}")
    return importlib.import_module(name)


def constants_for(loaded: Loaded, entry: Entry) -> dict[str, float]:
    """The bounds of operators, and AdamW's constants: of the case, its contract, or any other.

    Raises:
        SuiteError: no contract states one of them.
    """
    sources: list[Mapping[str, Any]] = [entry.case.parameters, entry.contract.constants]
    sources += [contract.constants for contract in loaded.contracts]
    sources += [
        case.parameters
        for contract in loaded.contracts
        for test in contract.tests
        for case in test.cases
        if set(OPTIMIZER) <= case.parameters.keys()
    ]
    found: dict[str, float] = {}
    for name in (*FACTORS, *OPTIMIZER):
        values = [s[name] for s in sources if isinstance(s.get(name), int | float)]
        if not values:
            raise SuiteError(f"no contract states {name}, which localizing needs")
        found[name] = float(values[0])
    return found


def localize(
    suite: Suite,
    loaded: Loaded,
    entry: Entry,
    subject: Any,
    defect: Defect | None,
    assets: AssetStore,
) -> Localized:
    """Run the falsifier of `entry` once, watched."""
    session = session_of(suite)
    # Claims are judged as of a clean entry: whether the defect is in force is said apart.
    attempt = Attempt(replace(entry, defect=None), loaded.configurations)
    with (
        tempfile.TemporaryDirectory() as folder,
        _planted(suite, defect, subject, Path(folder)) as (
            given,
            plant,
        ),
    ):
        watched, observer = session.observe(given, constants_for(loaded, entry))
        tmp_path = Path(folder) / "tmp"
        tmp_path.mkdir()
        error: BaseException | None = None
        try:
            check_requirements(entry, assets)
            call_falsifier(suite, attempt, watched, assets, tmp_path)
        except Exception as raised:
            error = raised
        attempt.conclude(error)
        account = session.account(observer)
        if plant is not None:
            plant.collect(Path(folder) / "plant-effects.jsonl")
    detail = attempt.explanation() or (attempt.reason or {}).get("detail", "")
    return Localized(
        entry=entry,
        outcome=str(attempt.outcome),
        detail=detail,
        in_force=plant is None or plant.changed > 0,
        **account,
    )


@contextmanager
def _planted(
    suite: Suite, defect: Defect | None, subject: Any, folder: Path
) -> Iterator[tuple[Any, Plant | None]]:
    if defect is None:
        yield subject, None
        return
    with planted(suite, defect, subject, folder / "plant-effects.jsonl") as plant:
        yield plant.subject, plant


def choose(entries: Iterable[Entry], case: str, device: str) -> list[Entry]:
    """The entries to localize: those of `case`, or the first of each test on `device`.

    `case` is the id of a case, the key of an entry, or ``name=value`` pairs that it must have.
    """
    clean = [entry for entry in entries if entry.defect is None]
    if case:
        return [entry for entry in clean if _is(entry, case)]
    first: dict[str, Entry] = {}
    for entry in clean:
        if entry.device == device:
            first.setdefault(entry.test.id, entry)
    return list(first.values())


def _is(entry: Entry, case: str) -> bool:
    if case in (entry.case.id, entry.key, entry.parameter_id):
        return True
    pairs = [pair.partition("=") for pair in case.split(",")]
    have = entry.case.id.split(",")
    return all(sign and f"{name}={value}" in have for name, sign, value in pairs)
