"""One entry being run: what it measured, how it ended, and the row that it leaves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aprverify.contract.claims import ClaimBroken, Outcome, Value
from aprverify.evidence.series import Series, disagreement, malformed
from aprverify.evidence.writer import utc_now
from aprverify.judging import judge
from aprverify.outcomes import Broken, Falsified, Inconclusive, NotRun, Survived
from aprverify.plan import Entry
from aprverify.planting import Plant
from aprverify.plugin.recording import series_of


@dataclass
class Attempt:
    """The state of one entry between its setup and its row."""

    entry: Entry
    configurations: Mapping[str, Mapping[str, Any]]
    comparisons: list[tuple[str, Outcome]] = field(default_factory=list)
    measures: dict[str, Any] = field(default_factory=dict)
    recorded: list[Series] = field(default_factory=list)
    assets: dict[str, str] = field(default_factory=dict)
    plant: Plant | None = None
    plant_report: Path | None = None
    canary: str = "not_measured"
    outcome: str | None = None
    reason: dict[str, str] | None = None
    started: str = field(default_factory=utc_now)
    _clock: float = field(default_factory=time.perf_counter)
    _fault: Broken | None = None

    def measured(self, **delivered: Any) -> None:
        """Evaluate the test's claims on what was measured; to be called once.

        Raises:
            Broken: not exactly the declared measures, or of another type, or a second call.
            Falsified: a comparison does not hold.
        """
        try:
            self._take(delivered)
            self._evaluate()
        except Broken as fault:
            # A falsifier that swallows this must not go on to be held.
            self._fault = self._fault or fault
            raise
        if not self.all_hold:
            raise Falsified(self.explanation())

    def series(
        self,
        name: str,
        points: Iterable[tuple[Any, Any]],
        *,
        x: str,
        y: str,
        x_unit: str = "",
        y_unit: str = "",
        claim: str | None = None,
    ) -> None:
        """Record how something went, for pictures; to be called before `measured`.

        `points` are (x, y) with x finite and increasing; a y of None, NaN or infinity is a gap. Of
        more than 256, those stay that `aprverify.evidence.series.thinned` says. `claim` is the id
        of the claim that judges the largest y. Without points nothing is recorded.

        Raises:
            Broken: a series that the reader of the run would refuse, or one after `measured`.
        """
        try:
            self._admit(name, claim)
            labels = (x, x_unit, y, y_unit)
            if found := series_of(name, points, labels, claim):
                for fault in malformed([*self.recorded, found]):
                    raise Broken(fault)
                self.recorded.append(found)
        except Broken as fault:
            self._fault = self._fault or fault
            raise

    def _admit(self, name: str, claim: str | None) -> None:
        if self.measures:
            raise Broken(f"series {name} came after measured(); record every series before it")
        if claim is not None and claim not in {declared.id for declared in self.entry.test.claims}:
            raise Broken(f"series {name}: {claim} is no claim of {self.entry.test.id}")

    def _take(self, delivered: Mapping[str, Any]) -> None:
        test = self.entry.test
        if self.measures:
            raise Broken("measured() was called twice; measure everything, then call it once")
        if delivered.keys() != test.measures.keys():
            missing = sorted(test.measures.keys() - delivered.keys())
            surplus = sorted(delivered.keys() - test.measures.keys())
            found = [f"not delivered: {', '.join(missing)}"] if missing else []
            found += [f"not declared: {', '.join(surplus)}"] if surplus else []
            raise Broken(f"measures {'; '.join(found)}")
        for name, measure in test.measures.items():
            self.measures[name] = _plain(name, measure.kind, delivered[name])

    def _evaluate(self) -> None:
        faults = []
        for claim, judged in judge(self.entry, self.configurations, self.measures):
            if isinstance(judged, ClaimBroken):
                faults.append(f"claim {claim}: {judged}")
            else:
                self.comparisons.append((claim, judged))
        if faults:
            raise Broken("; ".join(faults))
        self._check_series()

    def _check_series(self) -> None:
        for series in self.recorded:
            judged = [outcome for claim, outcome in self.comparisons if claim == series.claim]
            if judged and (fault := disagreement(series, judged)):
                self.recorded = []  # the reader would refuse the run, verdict and all
                raise Broken(fault)

    @property
    def all_hold(self) -> bool:
        """Whether every comparison holds."""
        return all(outcome.holds for _, outcome in self.comparisons)

    def explanation(self) -> str:
        """Each comparison that does not hold, with its values."""
        lines = []
        for claim, outcome in self.comparisons:
            if not outcome.holds:
                unit = f" {outcome.unit}" if outcome.unit not in ("", "1") else ""
                lines.append(
                    f"claim {claim}: {outcome.text}\n"
                    f"  observed {outcome.observed!r}{unit}, bound {outcome.op} {outcome.bound!r}"
                )
        return "\n".join(lines)

    def conclude(self, error: BaseException | None) -> BaseException | None:
        """Decide the outcome after the falsifier ended with `error`; what pytest should see."""
        error = _refused_by_subject(error) or error
        self.outcome, self.reason = self._verdict(error)
        if self.entry.defect:
            return self._conclude_teeth(error)
        if self.outcome == "falsified":
            return error if isinstance(error, Falsified) else Falsified(self.explanation())
        return self._raised(error)

    def _raised(self, error: BaseException | None) -> BaseException | None:
        return error if self.reason is None else error or Broken(self.reason["detail"])

    def _verdict(self, error: BaseException | None) -> tuple[str, dict[str, str] | None]:
        if self.comparisons and not self.all_hold:
            return "falsified", None
        error = self._fault or error
        if isinstance(error, NotRun):
            return "not_run", _reason(error.kind, error.detail, error.remedy)
        if isinstance(error, Inconclusive):
            return "inconclusive", _reason("inconclusive", str(error))
        if isinstance(error, KeyboardInterrupt):
            return "not_run", _reason("interrupted", "stopped by the user", "run it again")
        if error is not None:
            return "broken", _reason("error", describe(error))
        if not self.comparisons:
            detail = "the falsifier recorded no comparison: it returned without measured()"
            return "broken", _reason("error", detail)
        return "held", None

    def _conclude_teeth(self, error: BaseException | None) -> BaseException | None:
        if self.outcome not in ("held", "falsified"):
            self.outcome = "not_run" if self.outcome == "not_run" else "broken"
            return self._raised(error)
        fault = self._not_in_force()
        if fault:
            self.outcome, self.reason = "broken", _reason("plant", fault)
            return Broken(fault)
        if self.outcome == "falsified":
            self.outcome = "caught"
            return None
        self.outcome = "survived"
        return Survived(f"{self.entry.defect} was in force and every claim held")

    def _not_in_force(self) -> str:
        plant = self.plant
        if plant is None or plant.reached == 0:
            return f"{self.entry.defect} was not in force: its code was never reached"
        if plant.changed == 0:
            seen = f"reached {plant.reached} times, changed nothing"
            return f"{self.entry.defect} was not in force: {seen}"
        return ""

    def failed(self, when: str, error: BaseException) -> None:
        """Setup or teardown, as `when` says, ended with `error`."""
        if self.outcome == "falsified":
            return  # a comparison that failed is a fact, whatever breaks after it
        error = _refused_by_subject(error) or error
        if isinstance(error, NotRun):
            self.outcome, self.reason = "not_run", _reason(error.kind, error.detail, error.remedy)
        elif isinstance(error, KeyboardInterrupt):
            self.outcome = "not_run"
            self.reason = _reason("interrupted", "stopped by the user", "run it again")
        else:
            self.outcome = "broken"
            self.reason = _reason("setup", f"in {when}: {describe(error)}")

    def row(self, source_id: str, environment: str, nodeid: str, worker: str) -> dict[str, Any]:
        """The row of run.jsonl, without type, seq and prev."""
        entry = self.entry
        plant = self.plant
        return {
            "key": entry.key,
            "kind": entry.kind,
            "contract": entry.contract.id,
            "test": entry.test.id,
            "falsifier": entry.test.falsifier,
            "case": dict(entry.case.parameters),
            "scale": entry.case.scale,
            "defect": entry.defect,
            "outcome": self.outcome,
            "reason": self.reason,
            "comparisons": [{"claim": c, **asdict(o)} for c, o in self.comparisons],
            "measures": self.measures,
            **({"series": [asdict(series) for series in self.recorded]} if self.recorded else {}),
            "plant": plant
            and {"reached": plant.reached, "changed": plant.changed, "canary": self.canary},
            "assets": self.assets,
            "source_id": source_id,
            "environment": environment,
            "started": self.started,
            "seconds": round(time.perf_counter() - self._clock, 4),
            "nodeid": nodeid,
            "worker": worker,
        }


def empty_row(
    entry: Entry,
    outcome: str,
    reason: dict[str, str],
    source_id: str,
    environment: str,
    nodeid: str,
) -> dict[str, Any]:
    """The row of an entry that never came back: crashed, lost or not reached."""
    attempt = Attempt(entry, {})
    attempt.outcome, attempt.reason = outcome, reason
    return attempt.row(source_id, environment, nodeid, "controller")


def _refused_by_subject(error: BaseException | None) -> NotRun | None:
    # Subjects live behind a protocol that aprverify does not import: known by class name.
    if any(kind.__name__ == "NotSupported" for kind in type(error).__mro__):
        return NotRun("subject", str(error), "")
    return None


def describe(error: BaseException) -> str:
    """Type and message of an error, in one readable piece."""
    if isinstance(error, pytest.skip.Exception):
        return f"skipped by itself ({error.msg}); raise NotRun with a reason instead"
    if isinstance(error, Broken):
        return _printable(str(error))
    return _printable(f"{type(error).__name__}: {error}"[:2000])


def _reason(kind: str, detail: str, remedy: str = "") -> dict[str, str]:
    return {"kind": kind, "detail": _printable(detail), "remedy": remedy}


def _printable(text: str) -> str:
    # Output of a process decoded with surrogates is no UTF-8, and a run file is.
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(name: str, kind: str, value: Any) -> Value:
    """A builtin of the declared kind; torch and numpy scalars are taken by their `item()`."""
    taken = value
    if hasattr(value, "item") and not isinstance(value, (bool, int, float, str)):
        try:
            taken = value.item()
        except (TypeError, ValueError, RuntimeError):
            raise Broken(f"measure {name}: {type(value).__name__} is no single value") from None
    if kind == "text" and isinstance(taken, str):
        return _printable(str(taken))
    if kind == "boolean" and isinstance(taken, bool):
        return taken
    if kind == "number" and isinstance(taken, (int, float)) and not isinstance(taken, bool):
        return _number(name, taken)
    raise Broken(f"measure {name} is declared a {kind}, delivered {taken!r:.200}")


def _number(name: str, value: int | float) -> int | float:
    try:
        as_float = float(value)
    except OverflowError:
        raise Broken(f"measure {name} is beyond the largest number") from None
    return int(value) if isinstance(value, int) else as_float
