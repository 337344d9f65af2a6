"""What planted defects looked like: the rows of some runs, to hold a failure against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from aprverify.evidence.merge import Origin
from aprverify.evidence.records import Row, Run, instant
from aprverify.explain.alike import Effect, effects, likeness, told_apart

ALIKE = 0.9
"""From here on a failure is said to look like a planted defect; docs/explain.md has the cost."""
IN_PART = 0.6
"""From here on it is said to look like one in part."""


def claim_key(row: Row) -> str:
    """The key of the same case without a planted defect."""
    return f"{row.test}[{row.case_id}]"


@dataclass(frozen=True)
class Cause:
    """A planted defect and how much a failure looks like it.

    Attributes:
        defect: its id.
        likeness: from 0 to 1.
        key: the row that it is read from.
        run_id: the run that this row is of.
        same_case: whether that row is of the same case as the failure.
        on_top: it was planted where the test failed already, so its row shows both.
        differs: what looks otherwise, worst first.
        ruled_out_by: the key of an entry that held in the run and catches this defect.
    """

    defect: str
    likeness: float
    key: str
    run_id: str
    same_case: bool
    on_top: bool
    differs: tuple[str, ...]
    ruled_out_by: str | None = None

    @property
    def alike(self) -> bool:
        """Whether it may be named as what the failure looks like."""
        return self.likeness >= ALIKE and self.ruled_out_by is None


class Planted:
    """The caught defects of some runs by test, and what each test measured when nothing was wrong.

    Of two runs the newer one counts first.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        once = {run.sha256: run for run in runs}.values()
        newest = sorted(
            once, key=lambda r: (instant(r.header.started), r.header.run_id), reverse=True
        )
        self._teeth: dict[str, list[Origin]] = defaultdict(list)
        self._by_defect: dict[str, list[Origin]] = defaultdict(list)
        self._clean: dict[str, list[Origin]] = defaultdict(list)
        self._failed: set[tuple[str, str]] = set()
        self._effects: dict[tuple[str, str], dict[str, Effect]] = {}
        for run in newest:
            for row in run.rows:
                if row.outcome == "caught":
                    self._teeth[row.test].append(Origin(row, run))
                    self._by_defect[row.defect or ""].append(Origin(row, run))
                elif row.outcome == "held":
                    self._clean[row.test].append(Origin(row, run))
                elif row.outcome == "falsified":
                    self._failed.add((run.sha256, row.key))

    def caught(self, test: str) -> Sequence[Origin]:
        """Every row of a planted defect that the test caught, of the newest run first."""
        return self._teeth.get(test, ())

    def of(self, defect: str) -> Sequence[Origin]:
        """Every row in which this defect was caught, by whatever test."""
        return self._by_defect.get(defect, ())

    def clean(self, row: Row, run: Run | None = None) -> Row | None:
        """What the test measures when nothing is wrong: in the same case, or else in another one.

        `run`: where to look first, since another machine may measure something else.
        """
        held = self._clean.get(row.test, ())
        mine = [o for o in held if run is not None and o.run.sha256 == run.sha256]
        for place in (mine, held):
            for origin in place:
                if origin.row.case_id == row.case_id:
                    return origin.row
        alike = [o.row for o in held if o.row.device == row.device]
        return next(iter([*alike, *(o.row for o in held)]), None)

    def causes(
        self, failure: Row, left_out: Callable[[Origin], bool] = lambda origin: False
    ) -> list[Cause]:
        """Every defect that the failed test is known to catch, the most alike first.

        `left_out`: rows that are to be taken as not there.
        """
        seen = effects(failure, self.clean(failure))
        by_defect: dict[str, list[Origin]] = defaultdict(list)
        for origin in self.caught(failure.test):
            if not left_out(origin):
                by_defect[origin.row.defect or ""].append(origin)
        found = [self._cause(failure, seen, rows) for rows in by_defect.values()]
        if any(not cause.on_top for cause in found):
            # What was planted on top of a failure looks like that failure, whatever it is.
            found = [cause for cause in found if not cause.on_top]
        return sorted(found, key=lambda cause: (-cause.likeness, cause.defect))

    def _cause(self, failure: Row, seen: Mapping[str, Effect], rows: Sequence[Origin]) -> Cause:
        """The most telling row of one defect: planted alone, in the same case, on the device."""

        def order(origin: Origin) -> tuple[bool, bool, bool, float]:
            row = origin.row
            return (
                self._on_top(origin),
                row.case_id != failure.case_id,
                row.device != failure.device,
                -likeness(seen, self._effects_of(origin)),
            )

        best = min(rows, key=order)
        theirs = self._effects_of(best)
        return Cause(
            defect=best.row.defect or "",
            likeness=likeness(seen, theirs),
            key=best.row.key,
            run_id=best.run.header.run_id,
            same_case=best.row.case_id == failure.case_id,
            on_top=self._on_top(best),
            differs=tuple(told_apart(seen, theirs)),
        )

    def _effects_of(self, origin: Origin) -> dict[str, Effect]:
        place = (origin.run.sha256, origin.row.key)
        if place not in self._effects:
            self._effects[place] = effects(origin.row, self.clean(origin.row, origin.run))
        return self._effects[place]

    def _on_top(self, origin: Origin) -> bool:
        return (origin.run.sha256, claim_key(origin.row)) in self._failed
