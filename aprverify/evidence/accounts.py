"""Whether a run's lines add up: what its header and footer say against the rows between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from aprverify.evidence.records import (
    CLAIM_OUTCOMES,
    TEETH_OUTCOMES,
    ContractRecord,
    Footer,
    Header,
    Row,
    instant,
)

# Durations come from another clock than times of day, and times of day are written in whole
# seconds by some.
_CLOCKS_DIFFER = timedelta(seconds=2)


def missing_entries(
    header: Header, contracts: Iterable[ContractRecord], rows: Mapping[str, Row]
) -> Iterator[str]:
    """What a run that says it is complete has no row of.

    Which cases a counter-example is planted under is not recorded; one of them there must be, on a
    lane that takes all devices.
    """
    selection = header.selection
    if not selection.complete:
        return
    planted = {(row.test, row.defect) for row in rows.values()}
    for test in (test for contract in contracts for test in contract.tests):
        for name, case in test.cases.items():
            if selection.lane in ("all", case.lane) and f"{test.id}[{name}]" not in rows:
                yield f"no row of {test.id}[{name}]"
        if selection.teeth == "declared" and selection.lane == "all":
            for defect in test.counter_examples:
                if (test.id, defect) not in planted:
                    yield f"no row of {test.id} under {defect}"


def left_out_though_complete(header: Header) -> Iterator[str]:
    """Entries left out for their cost, in a run that says it left out none."""
    selection = header.selection
    if selection.complete and selection.too_dear is not None:
        left_out = selection.too_dear.entries
        yield f"the run is complete, and yet entries were left out for their cost: {left_out}"


def not_selected(
    header: Header, contracts: Iterable[ContractRecord], rows: Iterable[Row]
) -> Iterator[str]:
    """Rows that the header's own selection excludes."""
    selection = header.selection
    tests = {test.id: test for contract in contracts for test in contract.tests}
    for row in rows:
        if selection.teeth == "none" and row.kind == "teeth":
            yield f"{row.key}: no defect was to be planted"
        if selection.lane not in ("all", tests[row.test].cases[row.case_id].lane):
            yield f"{row.key}: the run is of the lane {selection.lane}"


def hidden_interruption(footer: Footer, rows: Iterable[Row]) -> Iterator[str]:
    """Entries that an interruption cut off, in a run that says it was not interrupted."""
    if not footer.interrupted:
        for row in rows:
            if row.reason is not None and row.reason.kind == "interrupted":
                yield f"{row.key} was interrupted, the footer says that the run was not"


def unknown_outcomes(footer: Footer) -> list[str]:
    """Words in the footer's count that no row can end with."""
    unknown = footer.outcomes.keys() - {*CLAIM_OUTCOMES, *TEETH_OUTCOMES}
    return [f"the footer counts {word!r}, no outcome" for word in sorted(unknown)]


def impossible_durations(header: Header, footer: Footer, rows: Sequence[Row]) -> Iterator[str]:
    """Durations that do not fit between the times that the run names."""
    finished = instant(footer.finished)
    said = timedelta(seconds=min(footer.seconds, 1e9))
    if abs(finished - instant(header.started) - said) > _CLOCKS_DIFFER:
        yield f"the footer says {footer.seconds} s, its times are further apart or nearer"
    for row in rows:
        if instant(row.started) + timedelta(seconds=min(row.seconds, 1e9)) > (
            finished + _CLOCKS_DIFFER
        ):
            yield f"{row.key} took {row.seconds} s and ends after the run"


def unused_environments(names: Iterable[str], rows: Iterable[Row]) -> list[str]:
    """Environments that no row ran in: a machine to show off with."""
    used = {row.environment for row in rows}
    unused = sorted(set(names) - used) if used else []
    return [f"no row ran in {name}" for name in unused]
