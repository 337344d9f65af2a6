"""How much one failure looks like another of the same test, as a number from 0 to 1.

Each thing that a row compared is told by how far it went from its clean value, in units of the
distance between that clean value and its bound, on a scale that is linear near the bound and
logarithmic far from it. Only what left its bound, or changed, in one row or the other counts: what
both left alone says nothing about which fault it was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aprverify.evidence.records import Comparison, Row
from aprverify.evidence.values import decode

_BEYOND = math.asinh(1.0)
"""At the bound, on the scale on which effects are told."""
_REPORTED = 0.5
"""What is reported and judged by no claim counts half: it has no bound that says what matters."""
_REPORTED_UNIT = 0.1
_WORD = re.compile(r"[A-Za-z][A-Za-z_]+")
_OF_THE_DAY = re.compile(r"\S*/\S+|\b[0-9a-f]{8,}\b")
"""Paths and digests: no two runs have them alike, whatever went wrong."""


@dataclass(frozen=True)
class Effect:
    """What a row did to one quantity: by how much, or to which value. `weight`: what it counts."""

    weight: float
    size: float | None
    value: Any
    moved: bool


def effects(row: Row, clean: Row | None) -> dict[str, Effect]:
    """Every effect of a row by name; `clean`: the same test with nothing wrong, if it is known."""
    before = {} if clean is None else {(c.claim, c.text): c for c in clean.comparisons}
    found = {
        f"{c.claim}: {c.text}": _compared(c, before.get((c.claim, c.text))) for c in row.comparisons
    }
    judged = {word for c in row.comparisons for word in _WORD.findall(c.text)}
    known = {} if clean is None else clean.measures
    for name, value in row.measures.items():
        if name not in judged:
            found[name] = _reported(value, known.get(name))
    return found


def likeness(one: Mapping[str, Effect], other: Mapping[str, Effect]) -> float:
    """From 0, nothing in common, to 1, the same effects; 0 where neither has any."""
    pairs = [(one[name], other[name]) for name in one.keys() & other.keys()]
    telling = [(a, b) for a, b in pairs if a.moved or b.moved]
    total = math.fsum(a.weight for a, _ in telling)
    if not total:
        return 0.0
    return math.fsum(a.weight * _agreement(a, b) for a, b in telling) / total


def told_apart(one: Mapping[str, Effect], other: Mapping[str, Effect]) -> Iterator[str]:
    """The names of what agrees least, worst first; what agrees well is left out."""
    names = sorted(
        (_agreement(one[name], other[name]), name)
        for name in one.keys() & other.keys()
        if one[name].moved or other[name].moved
    )
    yield from (name for agreement, name in names if agreement < 0.5)


def _compared(comparison: Comparison, clean: Comparison | None) -> Effect:
    observed, bound = comparison.observed, comparison.bound
    if not _is_number(observed) or not _is_number(bound):
        changed = not comparison.holds or (clean is not None and clean.observed != observed)
        return Effect(1.0, None, _essence(observed), changed)
    if not (math.isfinite(observed) and math.isfinite(bound)):
        return Effect(1.0, None, str(observed), True)
    away, unit = observed - bound, _unit(comparison)
    if clean is not None and _is_number(clean.observed) and _is_number(clean.bound):
        room = clean.observed - clean.bound
        away -= room
        unit = abs(room) or unit
    size = math.asinh(away / unit) if math.isfinite(away / unit) else math.copysign(710.0, away)
    return Effect(1.0, size, None, abs(size) >= _BEYOND or not comparison.holds)


def _unit(comparison: Comparison) -> float:
    """What a difference is measured in where clean values stand at their bound, or are unknown."""
    return abs(comparison.bound) or 1.0


def _reported(value: Any, clean: Any) -> Effect:
    value, clean = decode(value), decode(clean)
    if not _is_number(value):
        essence = _essence(value)
        return Effect(_REPORTED, None, essence, clean is None or essence != _essence(clean))
    if not math.isfinite(value):
        return Effect(_REPORTED, None, str(value), True)
    before = clean if _is_number(clean) and math.isfinite(clean) else 0.0
    size = math.asinh((value - before) / (_REPORTED_UNIT * abs(before) or 1.0))
    return Effect(_REPORTED, size, None, abs(size) >= _BEYOND)


def _agreement(one: Effect, other: Effect) -> float:
    if one.size is not None and other.size is not None:
        apart = abs(one.size - other.size)
        return max(0.0, 1.0 - apart / max(abs(one.size), abs(other.size), 1.0))
    if one.size is not None or other.size is not None:
        return 0.0
    if one.value == other.value:
        return 1.0
    mine, theirs = set(_WORD.findall(str(one.value))), set(_WORD.findall(str(other.value)))
    return len(mine & theirs) / len(mine | theirs) / 2 if mine and theirs else 0.0


def _essence(value: Any) -> str:
    """A text without what differs from run to run and from model to model."""
    return re.sub(r"\d+", "0", _OF_THE_DAY.sub("…", str(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
