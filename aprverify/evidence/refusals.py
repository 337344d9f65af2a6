"""Why a run is refused as evidence: one class a reason, each saying where and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from aprverify.evidence.terminal import one_line


class EvidenceRefused(Exception):
    """The run is no evidence. `line` counts from 1; None where the whole file is meant."""

    advice: ClassVar[str] = "run it again; evidence is never repaired"

    def __init__(self, path: Path, line: int | None, what: str) -> None:
        where = str(path) if line is None else f"{path}, line {line}"
        # Much of it is quoted from a file that was just found to be no evidence.
        super().__init__(one_line(f"{where}: {what}. What to do: {self.advice}."))
        self.path = path
        self.line = line


class MissingRun(EvidenceRefused):
    """There is no such file, or it is not a file."""

    advice = "name a run's folder or its run.jsonl"


class EmptyRun(EvidenceRefused):
    """The file holds no line."""


class DamagedLine(EvidenceRefused):
    """A line is no JSON object, or was cut off."""


class SchemaViolation(EvidenceRefused):
    """A line does not fit aprverify/schemas/run.schema.json, or stands where it may not."""


class BrokenChain(EvidenceRefused):
    """A line was changed, dropped, added or moved after it was written."""


class NoFooter(EvidenceRefused):
    """The run did not finish."""

    advice = "let the run finish (an interrupted run still writes its footer), then use that one"


class CountMismatch(EvidenceRefused):
    """Planned entries, rows and the sum of outcomes are not the same number."""


class DuplicateKey(EvidenceRefused):
    """Two lines claim one identity."""


class UnknownEnvironment(EvidenceRefused):
    """A row names an environment that no earlier line declares."""


class UnknownContract(EvidenceRefused):
    """A row names a contract that no earlier line declares."""


class UnknownTest(EvidenceRefused):
    """A row or a gate names a test, case, claim or counter-example that no contract declares."""


class ClockOrder(EvidenceRefused):
    """Times run backwards, or are no times."""

    advice = "set the clocks of the machines that took part, and run it again"


class InconsistentRow(EvidenceRefused):
    """A row contradicts itself: its outcome does not follow from what it recorded."""

    advice = "run it again; if it comes back, report a bug of aprverify or of the subject's adapter"


class NotOfThisContract(EvidenceRefused):
    """A row is said to be about the present files, and does not follow from their contract."""

    advice = "run it again from this checkout; the contract or the row was changed afterwards"
