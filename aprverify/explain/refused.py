"""A run that is no evidence, in plain words: what such a refusal usually comes from."""

from __future__ import annotations

from aprverify.evidence import refusals
from aprverify.evidence.refusals import EvidenceRefused

_WORDS: dict[type[EvidenceRefused], str] = {
    refusals.MissingRun: "There is no run at this path, so there is nothing to explain.",
    refusals.EmptyRun: "The file is there and holds nothing: the run died before its first line, "
    "or the disk was full.",
    refusals.DamagedLine: "A line is cut off or no JSON: the process was killed while it wrote, "
    "or the file was edited.",
    refusals.SchemaViolation: "A line is not of the form that runs have: another version wrote "
    "it, or the file was edited.",
    refusals.BrokenChain: "Each line holds the hash of the one before, and one does not fit: the "
    "file was changed after it was written.",
    refusals.NoFooter: "The run never finished: it is still going on, or its process was killed. "
    "What it had found by then cannot be trusted to be all of it.",
    refusals.CountMismatch: "Entries that were planned have no row, or rows are too many: a lane "
    "was lost, or lines were taken out.",
    refusals.DuplicateKey: "One entry has two rows, and nobody can say which one counts.",
    refusals.ClockOrder: "The times of the run do not fit together: a clock was set while it ran.",
    refusals.InconsistentRow: "The outcome of a row does not follow from the numbers in it: "
    "whoever wrote it did not compare what the contract says.",
}
_OTHERWISE = "The run names something that it does not declare, so it cannot be read on its own."


def in_words(refusal: EvidenceRefused) -> str:
    """What it means for somebody who wants to know what failed."""
    return _WORDS.get(type(refusal), _OTHERWISE)
