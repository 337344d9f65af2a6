"""What changed between two runs: gates, outcomes, values, bounds, and where they were measured.

The reports, the index and `aprverify diff` all say it from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from aprverify.evidence.history import used_share
from aprverify.evidence.records import Comparison, Environment, Row, Run
from aprverify.evidence.status import Status, gate_statuses
from aprverify.evidence.values import encode

FACTOR = 2.0
"""A value moved where it uses more than so many times as much of its bound, or as little."""
NEGLIGIBLE = 0.01
"""Below this share of the bound, in both runs, a value may move as it likes: it is noise."""
FAILING = frozenset({"falsified", "survived", "broken", "inconclusive"})
SHOWN = frozenset({"held", "caught"})


@dataclass(frozen=True)
class Change:
    """An entry in both runs; an outcome is None where it has no row."""

    key: str
    before: str | None
    after: str | None
    why: str


@dataclass(frozen=True)
class GateChange:
    """A gate with another status, by name; None where a run does not declare it."""

    contract: str
    gate: str
    before: str | None
    after: str | None

    @property
    def worse(self) -> bool:
        """Whether the later status is the worse one of two."""
        if self.before is None or self.after is None:
            return False
        return Status[self.after] < Status[self.before]


@dataclass(frozen=True)
class Moved:
    """A value that uses another share of its bound: 1 is at the bound."""

    key: str
    claim: str
    text: str
    used_before: float
    used_after: float


@dataclass(frozen=True)
class Rebound:
    """A comparison whose bound is another one, of values that a run measured or declared."""

    key: str
    claim: str
    text: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Differs:
    """Something about where or how the runs were made. `entries`: how many rows it concerns."""

    what: str
    before: str
    after: str
    entries: int


@dataclass(frozen=True)
class Changes:
    """All of it. An entry stands in one of the first five lists at most.

    Attributes:
        new: fails now, and did not before (it held, did not run, or had no row).
        fixed: failed before, and holds or is caught now.
        still_failing: fails in both, though perhaps in another way.
        gone: was shown or failed before, and did not run now or has no row.
        other: any other entry whose outcome is another one.
        closer, farther: values that moved towards their bound, or away from it.
        bounds: comparisons against another bound than before.
        surroundings: subject, contracts, environments.
        gates: those with another status.
    """

    new: tuple[Change, ...]
    fixed: tuple[Change, ...]
    still_failing: tuple[Change, ...]
    gone: tuple[Change, ...]
    other: tuple[Change, ...]
    closer: tuple[Moved, ...]
    farther: tuple[Moved, ...]
    bounds: tuple[Rebound, ...]
    surroundings: tuple[Differs, ...]
    gates: tuple[GateChange, ...]

    @property
    def worse(self) -> bool:
        """Whether something fails that did not, or is shown no longer."""
        return bool(self.new or self.gone)


def changes_between(before: Run, after: Run) -> Changes:
    """What `after` shows that `before` did not, and the other way round."""
    old = {row.key: row for row in before.rows}
    new = {row.key: row for row in after.rows}
    kinds: dict[str, list[Change]] = {
        "new": [], "fixed": [], "still_failing": [], "gone": [], "other": []
    }  # fmt: skip
    for key in sorted(old.keys() | new.keys()):
        kind = _kind(old.get(key), new.get(key))
        if kind:
            kinds[kind].append(_change(key, old.get(key), new.get(key)))
    pairs = [pair for key in sorted(old.keys() & new.keys()) for pair in _pairs(old[key], new[key])]
    moved = [m for key, a, b in pairs if (m := _moved(key, a, b)) is not None]
    return Changes(
        **{kind: tuple(changes) for kind, changes in kinds.items()},
        closer=tuple(m for m in moved if m.used_after > m.used_before),
        farther=tuple(m for m in moved if m.used_after < m.used_before),
        bounds=tuple(
            Rebound(key, a.claim, a.text, encode(a.bound), encode(b.bound))
            for key, a, b in pairs
            if encode(a.bound) != encode(b.bound)
        ),
        surroundings=(*_headers(before, after), *_environments(before, after)),
        gates=tuple(_gates(before, after)),
    )


def _gates(before: Run, after: Run) -> Iterator[GateChange]:
    old, new = (
        {(g.contract, g.gate): g.status.name for g in gate_statuses(run.contracts, run.rows)}
        for run in (before, after)
    )
    for contract, gate in sorted(old.keys() | new.keys()):
        was, now = old.get((contract, gate)), new.get((contract, gate))
        if was != now:
            yield GateChange(contract, gate, was, now)


def _kind(old: Row | None, new: Row | None) -> str | None:
    before = None if old is None else old.outcome
    after = None if new is None else new.outcome
    if after in FAILING:
        return "still_failing" if before in FAILING else "new"
    if before in FAILING:
        return "fixed" if after in SHOWN else "gone"
    if before in SHOWN and after not in SHOWN:
        return "gone"
    return "other" if before != after else None


def _change(key: str, old: Row | None, new: Row | None) -> Change:
    row = new or old
    assert row is not None
    failing = [f"{c.claim}: {c.text}" for c in row.comparisons if not c.holds]
    why = row.reason.detail if row.reason else "; ".join(failing)
    return Change(
        key,
        None if old is None else old.outcome,
        None if new is None else new.outcome,
        why if new is not None and new.outcome not in SHOWN else "",
    )


def _pairs(old: Row, new: Row) -> Iterator[tuple[str, Comparison, Comparison]]:
    """The comparisons that both rows made. Of planted defects nothing is to be read."""
    if old.kind != "claim":
        return
    before = {(c.claim, c.text): c for c in old.comparisons}
    for c in new.comparisons:
        if (c.claim, c.text) in before:
            yield new.key, before[c.claim, c.text], c


def _moved(key: str, old: Comparison, new: Comparison) -> Moved | None:
    before, after = used_share(old), used_share(new)
    if before is None or after is None or max(before, after) < NEGLIGIBLE:
        return None
    low, high = sorted((before, after))
    if high <= FACTOR * low:
        return None
    return Moved(key, new.claim, new.text, before, after)


def _headers(before: Run, after: Run) -> Iterator[Differs]:
    a, b = before.header, after.header
    told = {
        "subject": (a.subject, b.subject),
        "suite": (a.suite, b.suite),
        "commit": (a.source.commit or "unknown", b.source.commit or "unknown"),
        "aprverify": (a.source.aprverify_sha256[:12], b.source.aprverify_sha256[:12]),
    }
    for what, (old, new) in told.items():
        if old != new:
            yield Differs(what, old, new, len(after.rows))
    old_contracts = {c.id: c.sha256[:12] for c in before.contracts}
    new_contracts = {c.id: c.sha256[:12] for c in after.contracts}
    for name in sorted(old_contracts.keys() | new_contracts.keys()):
        old, new = old_contracts.get(name, "none"), new_contracts.get(name, "none")
        if old != new:
            rows = sum(row.contract == name for row in after.rows)
            yield Differs(f"contract {name}", old, new, rows)
    old_sources = {row.key: row.source_id for row in before.rows}
    changed = sum(old_sources.get(r.key, r.source_id) != r.source_id for r in after.rows)
    if changed:
        yield Differs("files that entries rest on", "those then", "others", changed)


def _environments(before: Run, after: Run) -> Iterator[Differs]:
    old = {e.id: e for e in before.environments}
    new = {e.id: e for e in after.environments}
    ran_in = {row.key: row.environment for row in before.rows}
    counts: dict[tuple[str, str, str], int] = {}
    for row in after.rows:
        if row.key in ran_in:
            for told in _facts(old[ran_in[row.key]], new[row.environment]):
                counts[told] = counts.get(told, 0) + 1
    for (what, a, b), entries in sorted(counts.items()):
        yield Differs(what, a, b, entries)


def _facts(old: Environment, new: Environment) -> Iterator[tuple[str, str, str]]:
    for field in fields(Environment):
        a, b = getattr(old, field.name), getattr(new, field.name)
        if field.name == "id" or a == b:
            continue
        if field.name in ("packages", "variables"):
            for name in sorted(a.keys() | b.keys()):
                if a.get(name) != b.get(name):
                    yield name, a.get(name, "none"), b.get(name, "none")
        elif field.name == "gpus":
            yield "GPUs", _gpus(old), _gpus(new)
        else:
            yield field.name, str(a), str(b)


def _gpus(environment: Environment) -> str:
    return ", ".join(gpu.name for gpu in environment.gpus) or "none"
