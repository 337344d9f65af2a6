"""One defect under every check: planted as the suite plants it, in force as the suite proves it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aprverify.matrix.trial import TooLong, time_limit
from aprverify.planting import Defect, Plant, planted
from benchmarks.compared.bands import Bands, loss_numbers, norm_numbers, spike
from benchmarks.compared.checks import CHECKS, Check, Test
from benchmarks.compared.comparing import Red, told
from benchmarks.compared.curves import SMALL, watch
from falsifiers.adapters.bundled import BundledSubject
from falsifiers.subject import Subject
from falsifiers.suite import SUITE

CAUGHT, MISSED, UNREACHED, EXCEEDED = "caught", "missed", "unreached", "exceeded"
LOSS, NORM = "loss", "norm"
LIMIT = 300
"""Seconds after which a check that hangs under a defect is ended; that is noticed by anybody."""


@dataclass(frozen=True)
class Finding:
    """What became of one defect under one check.

    Attributes:
        outcome: caught; missed, though it was in force while the check ran; unreached, because it
            was not; exceeded, because the trial was ended at a limit from outside.
        by: the first test or number that showed it, and what it showed, or the limit.
        seconds: processor time that the check took; on a busy machine the clock says more. None
            where the trial was ended.
    """

    outcome: str
    by: str
    seconds: float | None


@dataclass(frozen=True)
class Watch:
    """How curves are watched: which seed a planted run has, and the bands of clean ones."""

    seed: int
    losses: Bands
    norms: Bands


Trial = Callable[[], dict[str, Finding]]


def trials(defect: Defect, observer: Watch) -> dict[tuple[str, ...], Trial]:
    """What shows what the checks see of `defect`, by the checks that it shows that of."""

    def of(check: Check) -> Trial:
        return lambda: {check.id: tested(defect, check)}

    found: dict[tuple[str, ...], Trial] = {(check.id,): of(check) for check in CHECKS}
    return {**found, (LOSS, NORM): lambda: _watched(defect, observer)}


def try_clean(observer: Watch) -> dict[str, Finding]:
    """The same without a defect: whatever is caught is a false alarm."""
    found = {}
    for check in CHECKS:
        begun = time.process_time()
        by = _first_red(check, BundledSubject(), lambda: True)
        found[check.id] = Finding(CAUGHT if by else MISSED, by, _since(begun))
    return found | clean_watch(observer)


def clean_watch(observer: Watch) -> dict[str, Finding]:
    """The alarms that an observer raises at a clean run of the observer's seed."""
    begun = time.process_time()
    with _folder() as folder:
        alarms = _alarms(BundledSubject(), folder, observer)
    return {
        name: Finding(CAUGHT if by else MISSED, by, _since(begun)) for name, by in alarms.items()
    }


def tested(defect: Defect, check: Check) -> Finding:
    """What one check sees of `defect`."""
    begun = time.process_time()
    with _folder() as folder, _planted(defect, folder) as plant:
        by = _first_red(check, plant.subject, lambda: plant.reached > 0)
        return _concluded(plant, by, begun)


def _first_red(check: Check, subject: Subject, reached: Callable[[], bool]) -> str:
    """The first red test and why, or ""."""
    if by := _red_of(check.tests, subject):
        return by
    if check.walk is not None and not reached():
        _red_of({"walk": check.walk}, subject)
    return _red_of(check.dear, subject) if reached() else ""


def _red_of(tests: Mapping[str, Test], subject: Subject) -> str:
    for name, test in tests.items():
        with _folder() as folder:
            try:
                with time_limit(LIMIT):
                    test(subject, folder)
            except Exception as error:
                return f"{name}: {_described(error)}"
    return ""


def _watched(defect: Defect, observer: Watch) -> dict[str, Finding]:
    begun = time.process_time()
    with _folder() as folder, _planted(defect, folder) as plant:
        watch(plant.subject, folder / "small", observer.seed, SMALL)
        alarms = {LOSS: "", NORM: ""}
        if plant.reached:
            alarms = _alarms(plant.subject, folder / "watched", observer)
        return {name: _concluded(plant, by, begun) for name, by in alarms.items()}


def _alarms(subject: Subject, folder: Path, observer: Watch) -> dict[str, str]:
    try:
        with time_limit(LIMIT):
            curves = watch(subject, folder, observer.seed)
    except TooLong as error:
        return {LOSS: _described(error), NORM: _described(error)}
    losses, norms = loss_numbers(curves), norm_numbers(curves)
    return {
        LOSS: spike(curves) or observer.losses.alarm(losses, curves),
        NORM: observer.norms.alarm(norms, curves),
    }


def _concluded(plant: Plant, by: str, begun: float) -> Finding:
    in_force = plant.reached > 0 and plant.changed > 0
    outcome = (CAUGHT if by else MISSED) if in_force else UNREACHED
    return Finding(outcome, by, _since(begun))


def _described(error: Exception) -> str:
    return told(error) if isinstance(error, Red) else f"{type(error).__name__}: {told(error)}"


def _since(begun: float) -> float:
    return round(time.process_time() - begun, 3)


@contextmanager
def _planted(defect: Defect, folder: Path) -> Iterator[Plant]:
    report = folder / "plant-effects.jsonl"
    with planted(SUITE, defect, BundledSubject(), report) as plant:
        yield plant
        plant.collect(report)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="compared-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def as_json(found: Mapping[str, Finding]) -> dict[str, Any]:
    """Findings as a JSON object."""
    return {name: asdict(finding) for name, finding in found.items()}
