"""How often localizing names the right place and the right fault, over planted defects.

Two tables. Faults of the model are planted under the parity claims, one for each architecture,
whether those declare them or not. Others are planted under the tests that declare them. A row
counts if the defect was in force and anything showed: the claim failed, or something was named.
"""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aprverify.assets import AssetStore
from aprverify.contract.lint import Loaded
from aprverify.evidence import verdict
from aprverify.localizing.watch import Localized, localize, session_of
from aprverify.plan import Entry, make_plan
from aprverify.planting import Defect, load_defects
from aprverify.suite import Suite

ENOUGH = 0.95
"""The share of model-level rows whose place must be right."""


@dataclass(frozen=True)
class Row:
    """One defect under one case, and what was named."""

    defect: str
    test: str
    case: str
    counts: bool
    place: bool
    words: bool
    said: str

    @property
    def cells(self) -> str:
        """As a line of a Markdown table."""
        marks = [
            ("right" if ok else "WRONG") if self.counts else "—" for ok in (self.place, self.words)
        ]
        said = self.said.replace("|", "\\|")
        return f"| {self.defect} | {self.test} | {self.case} | {marks[0]} | {marks[1]} | {said} |"


def write_accuracy(suite: Suite, loaded: Loaded, assets: AssetStore, path: Path) -> int:
    """Plant everything, write the tables; 3 if the model's share is below `ENOUGH`."""
    expected = session_of(suite).expectations()
    defects = load_defects(suite)
    plan = make_plan(loaded.contracts, teeth="declared", lane="cpu")
    module, _, attribute = suite.subjects[suite.default_subject].partition(":")
    subject = getattr(importlib.import_module(module), attribute)()

    def rows(pairs: Iterator[tuple[Entry, str]], wanted: dict[str, tuple[str, str]]) -> list[Row]:
        found = []
        for entry, name in pairs:
            began = time.perf_counter()
            seen = _run(suite, loaded, entry, subject, defects[name], assets)
            row = _row(entry, name, seen, wanted[name])
            print(f"{time.perf_counter() - began:6.1f} s  {row.cells}", file=sys.stderr, flush=True)
            found.append(row)
        return found

    model = rows(_under(plan, expected["model_tests"], expected["model"]), expected["model"])
    declared = rows(_declared(plan, expected["declared"]), expected["declared"])
    path.write_text(render_accuracy(model, declared), encoding="utf-8")
    print(*_summary(model, declared), sep="\n")
    return verdict.OK if share(model, "place") >= ENOUGH else verdict.VACUOUS


def _run(
    suite: Suite,
    loaded: Loaded,
    entry: Entry,
    subject: object,
    defect: Defect,
    assets: AssetStore,
) -> Localized | str:
    try:
        return localize(suite, loaded, replace(entry, defect=defect.id), subject, defect, assets)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _under(
    plan: Sequence[Entry], tests: Sequence[str], defects: dict[str, tuple[str, str]]
) -> Iterator[tuple[Entry, str]]:
    """The first clean case of each architecture of `tests`, with each of `defects`."""
    first: dict[tuple[str, str], Entry] = {}
    for entry in plan:
        if entry.test.id in tests and entry.defect is None:
            first.setdefault((entry.test.id, str(entry.case.arch)), entry)
    yield from ((entry, name) for name in defects for entry in first.values())


def _declared(
    plan: Sequence[Entry], defects: dict[str, tuple[str, str]]
) -> Iterator[tuple[Entry, str]]:
    yield from ((e, e.defect) for e in plan if e.defect is not None and e.defect in defects)


def _row(entry: Entry, name: str, seen: Localized | str, wanted: tuple[str, str]) -> Row:
    test = entry.test.id.removeprefix("FALSIFY-")
    case = ", ".join(str(entry.case.parameters.get(n, "")) for n in ("arch", "dtype")).strip(", ")
    if isinstance(seen, str):
        return Row(name, test, case, True, False, False, f"failed: {seen}")
    if not seen.in_force:
        return Row(name, test, case, False, False, False, "not in force here")
    if not seen.findings and seen.outcome not in ("held", "falsified"):
        why = f"{seen.outcome}: {seen.detail.splitlines()[0][:80]}"
        return Row(name, test, case, False, False, False, why)
    if not seen.findings:
        failed = seen.outcome == "falsified"
        said = "nothing named" if failed else "below every bound: no claim fails either"
        return Row(name, test, case, failed, False, False, said)
    first = seen.findings[0]
    place = re.fullmatch(wanted[0], first["where"]) is not None
    words = place and re.search(wanted[1], first["fault"]) is not None
    return Row(name, test, case, True, place, words, first["sentence"])


def share(rows: Sequence[Row], what: str) -> float:
    """Of the rows that count, those that are right."""
    counted = [row for row in rows if row.counts]
    return sum(getattr(row, what) for row in counted) / len(counted) if counted else 0.0


def _summary(model: Sequence[Row], declared: Sequence[Row]) -> list[str]:
    return [_sentence("model", model), _sentence("declared elsewhere", declared)]


def _sentence(title: str, rows: Sequence[Row]) -> str:
    counted = [row for row in rows if row.counts]
    defects = len({row.defect for row in counted})
    shares = f"place right {share(rows, 'place'):.1%}, fault right {share(rows, 'words'):.1%}"
    return f"{title}: {len(counted)} rows of {defects} defects; {shares}"


def render_accuracy(model: Sequence[Row], declared: Sequence[Row]) -> str:
    """Both tables as Markdown."""
    head = "| defect | test | case | place | fault | first named |\n|---|---|---|---|---|---|"
    lines = [
        "# How often `aprverify localize` names the cause",
        "",
        "Generated by `aprverify localize --accuracy FILE` on a CPU at reduced scale; not edited "
        "by hand. A row counts if the defect was in force and showed: a claim failed, or something "
        "was named. *place* is the layer and operator, parameter or quantity that comes first; "
        "*fault* is what kind it looks like.",
        "",
        *(f"- {line}" for line in _summary(model, declared)),
        "",
        "## Faults of the model, under the parity claims",
        "",
        head,
        *(row.cells for row in model),
        "",
        "## Under the tests that declare them",
        "",
        head,
        *(row.cells for row in declared),
    ]
    return "\n".join(lines) + "\n"
