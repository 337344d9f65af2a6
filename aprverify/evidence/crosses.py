"""What a run holds beyond its rows where defects were planted off the diagonal.

A *cross* is a defect under a falsifier, declared or not. It decides no claim and no gate's status:
it tells which other falsifiers notice a defect too, and which defect nobody notices. So it is no
row: a run without crosses reads as ever, and what merges, gates and counts rows never meets one.

One `matrix` line says what was to be tried, and `cross` lines, one a lot, what came of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aprverify.contract.claims import compare
from aprverify.evidence.values import decode

OUTCOMES = ("killed", "passed", "unreached", "not_applicable", "broken")
"""killed: a claim failed with the defect in force. passed: in force, and every claim held.
unreached: its code never ran there, or changed nothing. not_applicable: the falsifier or the defect
does not apply to this subject or machine. broken: no measurement, or the defect was not removed."""


@dataclass(frozen=True)
class Column:
    """A falsifier with the one case that it is crossed under; `seconds` it takes when clean."""

    test: str
    case: str
    seconds: float

    @property
    def key(self) -> str:
        """The key of its clean row."""
        return f"{self.test}[{self.case}]"


@dataclass(frozen=True)
class Refuted:
    """The first comparison that did not hold. It reads ``observed op bound``."""

    claim: str
    text: str
    op: str
    observed: Any
    bound: Any


@dataclass(frozen=True)
class Cross:
    """A defect under the falsifier of a column.

    `steps`: optimizer steps that the falsifier had let the subject take when it measured, 0 before
    training starts; None where nobody counted, as in another process.
    """

    defect: str
    column: str
    outcome: str
    seconds: float
    by: Refuted | None = None
    steps: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Matrix:
    """What was tried off the diagonal.

    Attributes:
        full: every falsifier that can run here was to be crossed, whatever it takes.
        seconds: wall time of the crosses alone.
        planned: pairs that were to be tried.
        estimated: the wall time that was stated before.
        budget: the seconds given to the whole command; None: no end.
        columns: the falsifiers, by key.
        left_out: falsifiers that are no columns, and why.
        crosses: what was tried.
        wrong: defects whose removal was not complete.
    """

    full: bool
    device: str
    seconds: float
    estimated: float
    budget: float | None
    workers: int
    planned: int
    environment: str
    columns: Mapping[str, Column]
    left_out: Mapping[str, str]
    crosses: tuple[Cross, ...] = ()
    wrong: tuple[str, ...] = ()

    @property
    def untried(self) -> int:
        """Pairs for which there was no time."""
        return self.planned - len(self.crosses)

    @property
    def counts(self) -> Counter[str]:
        """Crosses by outcome."""
        return Counter(cross.outcome for cross in self.crosses)


def matrix_from(body: Mapping[str, Any]) -> Matrix:
    """The matrix line, validated against the schema before."""
    columns = [Column(**column) for column in body["columns"]]
    fields = {k: v for k, v in body.items() if k not in ("type", "seq", "prev")}
    return Matrix(**{**fields, "columns": {column.key: column for column in columns}})


def crosses_from(body: Mapping[str, Any]) -> list[Cross]:
    """The crosses of a cross line, validated against the schema before."""
    defect = body["defect"]
    tried = [Cross(defect=defect, **{**c, "by": _refuted(c.get("by"))}) for c in body["tried"]]
    # By far the most, and all alike: only their names are written.
    return tried + [Cross(defect, name, "unreached", 0.0) for name in body["never_called"]]


def cross_body(defect: str, canary: str, tried: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A cross line from what a worker said of a lot."""
    plain = [{k: v for k, v in c.items() if k != "never_called"} for c in tried]
    named = [c["column"] for c in tried if c.get("never_called")]
    rest = [p for p, c in zip(plain, tried, strict=True) if not c.get("never_called")]
    return {"defect": defect, "canary": canary, "tried": rest, "never_called": named}


def faults_of_matrix(
    matrix: Matrix, held: Mapping[str, str], environments: Mapping[str, object]
) -> Iterator[str]:
    """What is wrong with a matrix line. `held`: outcome by key of the run's clean rows."""
    if matrix.environment not in environments:
        yield f"the matrix names {matrix.environment}"
    for key in matrix.columns:
        if held.get(key) != "held":
            yield f"{key} is crossed, but its clean row did not hold: a kill would say nothing"


def faults_of_crosses(
    matrix: Matrix, crosses: Sequence[Cross], claims: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """What is wrong with crosses. `claims`: the ids of the claims of each test."""
    for cross in crosses:
        said = f"{cross.column} under {cross.defect}"
        column = matrix.columns.get(cross.column)
        if column is None:
            yield f"{said}: no column of the matrix"
        elif cross.by is not None and cross.by.claim not in claims[column.test]:
            yield f"{said}: {cross.by.claim} is no claim of {column.test}"
        if (cross.outcome == "killed") != (cross.by is not None):
            yield f"{said}: {cross.outcome}; a failed comparison is not there or too many"
        if cross.by is not None and _holds(cross.by):
            yield f"{said}: killed by {cross.by.text}, which holds"


def faults_of_counts(matrix: Matrix, defects: frozenset[str]) -> Iterator[str]:
    """What does not add up at the end. `defects`: those that the contracts declare."""
    seen = Counter((cross.defect, cross.column) for cross in matrix.crosses)
    yield from (f"{c} under {d} is there {n} times" for (d, c), n in seen.items() if n > 1)
    if len(matrix.crosses) > matrix.planned:
        yield f"{len(matrix.crosses)} crosses, {matrix.planned} were planned"
    if unknown := sorted({cross.defect for cross in matrix.crosses} - defects):
        yield f"no contract declares the defect {unknown[0]}"
    if matrix.untried and matrix.budget is None:
        yield f"{matrix.untried} of {matrix.planned} crosses are missing, and nothing limited them"


def _refuted(body: Mapping[str, Any] | None) -> Refuted | None:
    if body is None:
        return None
    numeric = body["op"] in ("<", "<=", ">", ">=")
    fields = dict(body)
    for name in ("observed", "bound") if numeric else ():
        fields[name] = decode(fields[name])
    return Refuted(**fields)


def _holds(by: Refuted) -> bool:
    try:
        return bool(compare(by.op, by.observed, by.bound))
    except (TypeError, KeyError, OverflowError, re.error):
        return True  # nothing that can be evaluated has failed
