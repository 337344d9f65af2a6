"""The gates across the committed runs: each run by its own rows alone, oldest first."""

from __future__ import annotations

from collections.abc import Sequence

from aprverify.evidence.records import Run, instant
from aprverify.evidence.status import GateStatus, Status, gate_statuses
from aprverify.views.pictures.svg import CHARACTER, cell, clipped, document, label, line

_KINDS = {
    Status.FALSIFIED: ("bad", "F"),
    Status.VACUOUS: ("bad", "V"),
    Status.BROKEN: ("bad", "B"),
    Status.STALE: ("open", "S"),
    Status.PENDING: ("none", "P"),
    Status.PARTIAL_ALGORITHM_LEVEL: ("open", "A"),
    Status.DISCHARGED: ("good", "D"),
}
_WORDS = (
    "D discharged   A algorithm level only   P pending",
    "F falsified   V vacuous   B broken   ! blocks shipping",
)
_MOST = 30
_SIZE = 14
_STEP = 18
_LABEL = 52
_LEFT = _LABEL * CHARACTER + 16


def render_history(runs: Sequence[Run]) -> str:
    """The newest thirty runs across, every gate that any of them declares down."""
    ordered = sorted(runs, key=lambda run: (instant(run.header.started), run.header.run_id))[
        -_MOST:
    ]
    columns = [
        {(s.contract, s.gate): s for s in gate_statuses(run.contracts, run.rows)} for run in ordered
    ]
    gates = list(dict.fromkeys(key for column in reversed(columns) for key in column))
    names = [f"{run.header.run_id} {run.header.subject}" for run in ordered]
    top = 52 + CHARACTER * max((len(name) for name in names), default=0)
    parts = [label(8, 18 + 14 * i, words, kind="faint") for i, words in enumerate(_WORDS)]
    for i, name in enumerate(names):
        parts.append(label(_LEFT + _STEP * i + 11, top - 6, name, turn=-90))
    for i, gate in enumerate(gates):
        found = [column.get(gate) for column in columns]
        parts += _row(top + _STEP * i, gate[1], found)
    width = max(_LEFT + _STEP * len(ordered), CHARACTER * max(map(len, _WORDS))) + 16
    bottom = top + _STEP * len(gates)
    about = "The status of every gate in every committed run, judged by the rows of that run alone."
    return document(width, bottom + 12, "Gates across runs", about, parts)


def _row(y: float, gate: str, found: Sequence[GateStatus | None]) -> list[str]:
    blocking = any(status is not None and status.ship_blocking for status in found)
    name = clipped(f"{gate} !" if blocking else gate, _LABEL)
    parts = [label(_LEFT - 8, y + 11, name, anchor="end")]
    parts.append(line(_LEFT, y + _SIZE / 2, _LEFT + _STEP * len(found), y + _SIZE / 2))
    for i, status in enumerate(found):
        if status is not None:
            kind, letter = _KINDS[status.status]
            says = f"{gate}: {status.status.name}"
            parts.append(cell(_LEFT + _STEP * i, y, _SIZE, kind, letter, says))
    return parts
