"""Judges rows about the present files once more, by the contract as it stands in the checkout.

A run carries the contracts it was made under, and its reader can check it against these only. Here
the contract is at hand: bounds are computed again from its constants and from what was measured,
so that neither a bound nor a claim can be softened in the run itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aprverify.contract.claims import ClaimBroken, Outcome
from aprverify.evidence.records import VERDICTS, Comparison, Row, Run
from aprverify.evidence.refusals import NotOfThisContract
from aprverify.evidence.values import decode
from aprverify.gate.checkout import Checkout
from aprverify.judging import judge
from aprverify.plan import Entry

_RELATIVE, _ABSOLUTE = 1e-9, 1e-12
"""Logarithms differ in their last digit between C libraries, and differences magnify that."""


def recheck(run: Run, checkout: Checkout, source_ids: Mapping[str, str]) -> None:
    """Judge every row of `run` that is about the present files again.

    Raises:
        NotOfThisContract: a row does not follow from the contract that it says it is about.
    """
    recorded = {test.id: test for contract in run.contracts for test in contract.tests}
    present = {test.id: test for contract in checkout.contracts for test in contract.tests}
    checked: set[str] = set()
    for row in run.rows:
        if source_ids.get(row.key) != row.source_id:
            continue
        ours, theirs = present[row.test], recorded[row.test]
        if row.test not in checked and (ours.claims, ours.cases, ours.counter_examples) != (
            theirs.claims,
            theirs.cases,
            theirs.counter_examples,
        ):
            raise NotOfThisContract(
                run.path, None, f"{row.key}: the run has other claims, cases or defects of its test"
            )
        checked.add(row.test)
        entry = checkout.entries[row.key]
        if row.outcome in VERDICTS:
            try:
                _recheck_verdict(run, row, entry, checkout)
            except (TypeError, OverflowError) as error:
                what = f"{row.key}: its measures are not of the declared types: {error}"
                raise NotOfThisContract(run.path, None, what) from None


def _recheck_verdict(run: Run, row: Row, entry: Entry, checkout: Checkout) -> None:
    if row.measures.keys() != entry.test.measures.keys():
        what = f"{row.key}: it measured {', '.join(row.measures) or 'nothing'}"
        raise NotOfThisContract(run.path, None, what)
    judged = judge(entry, checkout.loaded.configurations, _measures(row, entry))
    # What cannot be compared left no comparison in the row either.
    again = [(claim, found) for claim, found in judged if not isinstance(found, ClaimBroken)]
    if len(again) != len(row.comparisons):
        what = f"{row.key}: {len(row.comparisons)} comparisons, the contract makes {len(again)}"
        raise NotOfThisContract(run.path, None, what)
    for (claim, found), said in zip(again, row.comparisons, strict=True):
        if not _same(claim, found, said):
            raise NotOfThisContract(
                run.path,
                None,
                f"{row.key}: claim {said.claim}: the row says {said.observed!r} {said.op} "
                f"{said.bound!r}, the contract makes {found.observed!r} {found.op} {found.bound!r} "
                "of what was measured",
            )


def _measures(row: Row, entry: Entry) -> dict[str, Any]:
    declared = entry.test.measures
    return {
        name: decode(value) if declared[name].kind == "number" else value
        for name, value in row.measures.items()
    }


def _same(claim: str, found: Outcome, said: Comparison) -> bool:
    return (
        (claim, found.text, found.op) == (said.claim, said.text, said.op)
        and _alike(found.observed, said.observed)
        and _alike(found.bound, said.bound)
    )


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_alike, one, other))
    numbers = not isinstance(one, (bool, str)) and not isinstance(other, (bool, str))
    if not numbers or one is None or other is None:
        return type(one) is type(other) and bool(one == other)
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
