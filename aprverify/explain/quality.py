"""How often `explain` names the right fault: planted defects, taken for failures of a trainer.

``python -m aprverify.explain.quality RUN [OTHER…]`` prints the table of docs/explain.md. Every
caught defect of RUN is shown to the ranking as if it were a claim that failed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aprverify.evidence.markdown import table
from aprverify.evidence.merge import Origin
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Row, Run
from aprverify.explain.planted import Cause, Planted, claim_key

_SAME = 1e-9


@dataclass(frozen=True)
class Quality:
    """What became of the rows of one question.

    Attributes:
        question: what is left out of what is known.
        failures: rows asked about.
        candidates: planted defects to choose from, summed over the rows.
        chance: how many would be first by drawing one at random.
        first: the right defect alone is the most alike.
        shared: it is the most alike, and others are exactly as alike.
        three: it is among the first three, all that are as alike counted before it.
        named: the defect named as what it looks like is the right one, alone or among equals.
        misnamed: a wrong one is named.
    """

    question: str
    failures: int
    candidates: int
    chance: float
    first: int
    shared: int
    three: int
    named: int
    misnamed: int


def qualities(run: Run, others: Sequence[Run]) -> list[Quality]:
    """What is asked of the ranking; it differs by what is known of the right defect."""
    alone, everything = Planted([run]), Planted([run, *others])
    kept = _known(run, alone, lambda row: lambda origin: False)
    repeated = _known(run, everything, lambda row: _not_in_another_run(run, row))
    elsewhere = _known(run, everything, _same_case)
    apart = {row.key for row, _ in elsewhere}
    either = elsewhere + [asked for asked in kept if asked[0].key not in apart]
    never = [(row, alone.causes(failure, _same_defect(row))) for row, failure in _asked(run)]
    return [
        _quality("other cases, or where there are none its own row", either),
        _quality("its own row", kept),
        _quality("the same case, in another run", repeated),
        _quality("other cases only", elsewhere),
        _quality("nothing: it was never planted", never),
    ]


def quality_lines(found: Sequence[Quality]) -> list[str]:
    """The table of docs/explain.md."""
    head = (
        "what is known of the right defect", "failures", "candidates", "first by chance", "first",
        "first, with equals", "first three", "named right", "named wrong",
    )  # fmt: skip
    rows = (
        [
            one.question,
            str(one.failures),
            f"{one.candidates / max(one.failures, 1):.1f}",
            _share(one.chance, one.failures),
            _share(one.first, one.failures),
            _share(one.first + one.shared, one.failures),
            _share(one.three, one.failures),
            _share(one.named, one.failures),
            _share(one.misnamed, one.failures),
        ]
        for one in found
    )
    return table(head, rows, "lrrrrrrrr")


def _share(part: float, whole: int) -> str:
    return f"{part:.0f} ({100 * part / whole:.0f} %)" if whole else "–"


_LeftOut = Callable[[Origin], bool]
_Asked = list[tuple[Row, list[Cause]]]


def _not_in_another_run(run: Run, row: Row) -> _LeftOut:
    """Of the row's own defect, everything but the same case in other runs."""
    return lambda origin: (
        origin.row.defect == row.defect
        and (origin.run.sha256 == run.sha256 or origin.row.key != row.key)
    )


def _same_case(row: Row) -> _LeftOut:
    return lambda origin: origin.row.key == row.key


def _same_defect(row: Row) -> _LeftOut:
    return lambda origin: origin.row.defect == row.defect


def _asked(run: Run) -> Iterator[tuple[Row, Row]]:
    """Every caught defect, as it was recorded and as if it were a failure."""
    return ((row, as_failure(row)) for row in run.rows if row.outcome == "caught")


def _known(run: Run, planted: Planted, left_out: Callable[[Row], _LeftOut]) -> _Asked:
    """Every caught defect with its causes, where the right one is among them."""
    asked = [(row, planted.causes(failure, left_out(row))) for row, failure in _asked(run)]
    return [(row, causes) for row, causes in asked if any(c.defect == row.defect for c in causes)]


def _quality(question: str, asked: _Asked) -> Quality:
    ranks = [
        _place(row, causes) for row, causes in asked if any(c.defect == row.defect for c in causes)
    ]
    named = [(row, _named(causes)) for row, causes in asked]
    right = sum(row.defect in defects for row, defects in named)
    return Quality(
        question=question,
        failures=len(asked),
        candidates=sum(len(causes) for _, causes in asked),
        chance=sum(1 / len(causes) for _, causes in asked) if ranks else 0.0,
        first=sum(place == (0, 0) for place in ranks),
        shared=sum(before == 0 and equal > 0 for before, equal in ranks),
        three=sum(before + equal < 3 for before, equal in ranks),
        named=right,
        misnamed=sum(bool(defects) for _, defects in named) - right,
    )


def as_failure(row: Row) -> Row:
    """The same row as if no defect had been planted and the claim had failed."""
    return replace(row, key=claim_key(row), kind="claim", defect=None, outcome="falsified")


def _place(row: Row, causes: Sequence[Cause]) -> tuple[int, int]:
    """How many wrong defects are more alike than the right one, and how many exactly as alike."""
    mine = next(cause.likeness for cause in causes if cause.defect == row.defect)
    before = sum(cause.likeness > mine + _SAME for cause in causes)
    return before, sum(abs(cause.likeness - mine) <= _SAME for cause in causes) - 1


def _named(causes: Sequence[Cause]) -> set[str]:
    """The defects that a failure is said to look like: the most alike, if it is alike enough."""
    best = causes[0].likeness if causes and causes[0].alike else 2.0
    return {cause.defect for cause in causes if cause.likeness >= best - _SAME}


if __name__ == "__main__":
    first, *rest = (read_run(Path(name)) for name in sys.argv[1:])
    print(*quality_lines(qualities(first, rest)), sep="\n")
