"""One falsifier tried in this process, clean or under a defect, without pytest around it.

The same parts as in a run: the attempt judges what was measured, the plant says whether the defect
was in force. Only what leaves a row in a run leaves a few words here.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aprverify.evidence.values import encode
from aprverify.matrix.asked import Asked, AskedSubject
from aprverify.matrix.steps import CountingSubject, Steps
from aprverify.outcomes import NotRun
from aprverify.plan import Entry
from aprverify.planting import Plant, call_if_named, planted
from aprverify.plugin.attempt import Attempt
from aprverify.plugin.in_process import call_falsifier
from aprverify.plugin.requirements import check_requirements
from aprverify.plugin.state import State

_LONGEST_DETAIL = 300
_OUTCOMES = {"caught": "killed", "survived": "passed", "not_run": "not_applicable"}


class TooLong(Exception):
    """A falsifier did not come to its end."""


class Trials:
    """Tries entries one after another. `limit`: seconds after which one is given up."""

    def __init__(self, state: State, limit: float) -> None:
        self._state = state
        self._limit = limit

    def clean(self, entry: Entry, asked: Asked | None = None) -> Attempt:
        """Run it as a claim; `asked` learns what it asks of the subject."""
        attempt = Attempt(entry, self._state.loaded.configurations)

        def subject() -> Any:
            clean = self._state.subject
            return clean if asked is None else AskedSubject(clean, asked)

        with _folder() as tmp_path:
            self._run(attempt, subject, Steps(), tmp_path)
        return attempt

    def cross(self, entry: Entry) -> dict[str, Any]:
        """Run it under its defect; the body of a cross, without its defect."""
        begun = time.perf_counter()
        attempt, steps = Attempt(entry, self._state.loaded.configurations), Steps()
        with _folder() as tmp_path:
            try:
                self._planted(attempt, steps, tmp_path)
            except NotRun as reason:
                attempt.failed("setup", reason)
            except Exception as error:
                attempt.failed("planting", error)
        return {
            "column": f"{entry.test.id}[{entry.case.id}]",
            **_told(attempt, steps),
            "seconds": round(time.perf_counter() - begun, 4),
        }

    def _planted(self, attempt: Attempt, steps: Steps, tmp_path: Path) -> None:
        state = self._state
        defect, report = state.defect(attempt.entry), tmp_path / "plant-effects.jsonl"
        with planted(state.suite, defect, state.subject, report) as plant:
            attempt.plant, attempt.plant_report = plant, report
            self._run(attempt, lambda: plant.subject, steps, tmp_path)

    def _run(
        self, attempt: Attempt, subject: Callable[[], Any], steps: Steps, tmp_path: Path
    ) -> None:
        error: BaseException | None = None
        try:
            with time_limit(self._limit):
                attempt.assets = check_requirements(attempt.entry, self._state.assets)
                counting = CountingSubject(subject(), steps)
                call_falsifier(self._state.suite, attempt, counting, self._state.assets, tmp_path)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:
            error = raised
        if attempt.plant is not None and attempt.plant_report is not None:
            attempt.plant.collect(attempt.plant_report)
        attempt.conclude(error)
        call_if_named(self._state.suite.after_entry)


def _told(attempt: Attempt, steps: Steps) -> dict[str, Any]:
    if attempt.outcome == "caught":
        claim, failed = next((c, o) for c, o in attempt.comparisons if not o.holds)
        by = {
            "claim": claim,
            "text": failed.text,
            "op": failed.op,
            "observed": failed.observed,
            "bound": failed.bound,
        }
        return {"outcome": "killed", "by": encode(by), "steps": steps.taken}
    if _unreached(attempt):
        return {"outcome": "unreached"}
    detail = (attempt.reason or {}).get("detail", "")[:_LONGEST_DETAIL]
    if (attempt.reason or {}).get("kind") == "plant":
        detail = f"a claim failed, and yet {detail}"
    told = {"outcome": _OUTCOMES.get(str(attempt.outcome), "broken")}
    return {**told, "detail": detail} if detail else told


def _unreached(attempt: Attempt) -> bool:
    """Whether all held because the defect was not there. A claim that failed without it is not."""
    reason, plant = attempt.reason or {}, attempt.plant
    return reason.get("kind") == "plant" and attempt.all_hold and _without_effect(plant)


def _without_effect(plant: Plant | None) -> bool:
    return plant is None or plant.reached == 0 or plant.changed == 0


@contextmanager
def _folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="aprverify-cross-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in this thread after so many seconds inside."""

    def stop(*_: object) -> None:
        raise TooLong(f"not at its end after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
