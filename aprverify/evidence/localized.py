"""What is first at fault in the failed claims of a run, in words: the same in every view."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from aprverify.evidence.records import Localization, Row

_DISTRUSTED = 2.0
"""A clean operator was seen to reach up to 1.9 times its bound in float32 (docs/localize.md)."""


@dataclass(frozen=True)
class Place:
    """One place that is named, or one reason why none is, and the rows that it is said of."""

    named: bool
    said: str
    rows: tuple[Row, ...]


def first_fault(seen: Localization) -> str:
    """What is first at fault and how far that is to be trusted, or why nothing is named."""
    if seen.first is None:
        what = "nothing named" if seen.ending == "nothing" else "not localized"
        return "; ".join((f"{what}: {seen.said}", *seen.notes))
    doubts = []
    if seen.first.times_bound < _DISTRUSTED:
        doubts.append("less than twice its bound, which a right operator may reach: distrust it")
    if seen.outcome != "falsified":
        doubts.append(f"when this was seen the claim was {seen.outcome}, not falsified")
    return "; ".join((seen.said, *doubts))


def places(rows: Iterable[Row]) -> list[Place]:
    """The places named in these rows, then the reasons for naming none; the most frequent first.

    Entries that name the same fault at the same place are one, whatever their errors were.
    """
    groups: dict[tuple[bool, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if (seen := row.localization) is not None and seen.first is not None:
            groups[True, seen.first.where, seen.first.fault].append(row)
        elif seen is not None:
            groups[False, seen.ending, seen.said].append(row)
    found = [Place(key[0], _said(group[0]), tuple(group)) for key, group in groups.items()]
    return sorted(found, key=lambda place: (not place.named, -len(place.rows)))


def _said(row: Row) -> str:
    return "" if row.localization is None else first_fault(row.localization)
