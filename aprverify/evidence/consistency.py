"""Whether a row's outcome follows from what the row itself recorded.

The reader believes no verdict: every comparison is evaluated again from its two values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from aprverify.contract.claims import compare, slack_and_margin
from aprverify.evidence.records import (
    CLAIM_OUTCOMES,
    TEETH_OUTCOMES,
    VERDICTS,
    Comparison,
    Environment,
    Localization,
    Row,
    TestRecord,
)
from aprverify.evidence.series import disagreement, malformed
from aprverify.evidence.values import encode, is_finite


def contradictions(row: Row, test: TestRecord, environment: Environment) -> Iterator[str]:
    """What is wrong with the row, one sentence each; nothing for a sound row."""
    yield from _kind(row)
    yield from _reason(row)
    yield from _plant(row)
    for comparison in row.comparisons:
        yield from _comparison(comparison)
    yield from _series(row, test)
    if row.localization is not None:
        yield from _localization(row, row.localization)
    if row.kind == "claim" and row.outcome not in VERDICTS:
        # Whatever broke after it: a comparison that failed is a fact.
        failed = [comparison.claim for comparison in row.comparisons if not comparison.holds]
        yield from (f"{row.outcome}, but claim {claim} does not hold" for claim in failed[:1])
    if row.outcome in VERDICTS:
        yield from _verdict(row, test)
        if row.device.startswith("cuda") and not environment.gpus:
            yield f"{row.outcome} on {row.device}, but {environment.id} has no GPU"


def _kind(row: Row) -> Iterator[str]:
    if row.kind == "teeth" and row.defect is None:
        yield "a teeth row without a defect"
    if row.kind == "claim" and row.defect is not None:
        yield f"a claim row under the defect {row.defect}"
    allowed = CLAIM_OUTCOMES if row.kind == "claim" else TEETH_OUTCOMES
    if row.outcome not in allowed:
        yield f"a {row.kind} row cannot be {row.outcome}"


def _reason(row: Row) -> Iterator[str]:
    if row.outcome in VERDICTS and row.reason is not None:
        yield f"{row.outcome}, and yet a reason for having no verdict: {row.reason.detail}"
    if row.outcome not in VERDICTS and row.reason is None:
        yield f"{row.outcome} without a reason"


def _plant(row: Row) -> Iterator[str]:
    if row.kind == "claim" and row.plant is not None:
        yield "a claim row with a planted defect"
    if row.outcome not in ("caught", "survived"):
        return
    if row.plant is None:
        yield f"{row.outcome} without proof that the defect was in force"
    elif row.plant.reached == 0:
        yield f"{row.outcome}, but the planted code was never reached"
    elif row.plant.changed == 0:
        yield f"{row.outcome}, but the planted code changed no output"
    elif row.plant.canary == "different":
        yield f"{row.outcome}, but the defect outlived its removal: the canary differs"
    elif row.plant.canary != "same":
        yield f"{row.outcome}, but whether the defect outlived its removal was not measured"


def _comparison(comparison: Comparison) -> Iterator[str]:
    said = f"claim {comparison.claim}: {comparison.text}"
    if comparison.holds and not (is_finite(comparison.observed) and is_finite(comparison.bound)):
        yield f"{said}: a non-finite value is said to hold"
        return
    try:
        holds = compare(comparison.op, comparison.observed, comparison.bound)
    except (TypeError, KeyError, OverflowError, re.error) as error:
        yield f"{said}: cannot be evaluated again ({error})"
        return
    if holds is not comparison.holds:
        values = f"{comparison.observed!r} {comparison.op} {comparison.bound!r}"
        yield f"{said}: {values} is {holds}, the row says {comparison.holds}"
    recorded = (comparison.slack, comparison.margin)
    distances = slack_and_margin(comparison.op, comparison.observed, comparison.bound)
    # Else encoded, since a NaN equals nothing, not even itself.
    if distances != recorded and (found := encode(distances)) != (said_so := encode(recorded)):
        yield f"{said}: slack and margin are {found}, the row says {said_so}"


def _series(row: Row, test: TestRecord) -> Iterator[str]:
    yield from malformed(row.series)
    for series in row.series:
        if series.claim is None:
            continue
        compared = [c for c in row.comparisons if c.claim == series.claim]
        if series.claim not in test.claims:
            yield f"series {series.name!r} is judged by {series.claim}, which is no claim"
        elif compared and (fault := disagreement(series, compared)):
            yield fault


def _localization(row: Row, seen: Localization) -> Iterator[str]:
    if (row.kind, row.outcome) != ("claim", "falsified"):
        yield f"a {row.kind} row that is {row.outcome} names a cause: only a falsified claim does"
    first, ran = seen.first, seen.ending in ("named", "nothing")
    if (first is not None) != (seen.ending == "named"):
        yield f"its localization is {seen.ending}, " + ("with" if first else "without") + " a fault"
    if (seen.outcome is not None) != ran:
        yield f"its localization is {seen.ending}, and its claims ended {seen.outcome}"
    if first is not None and not first.times_bound > 1:
        yield f"{first.where} is named, but its error is {first.times_bound!r} of its bound"
    if first is not None and not seen.said.startswith(f"{first.where}: "):
        yield f"{first.where} is named, but what is said is about another place"
    if first is None and seen.more:
        yield f"nothing is named first, and yet {seen.more} after it"


def _verdict(row: Row, test: TestRecord) -> Iterator[str]:
    if not row.comparisons:
        yield f"{row.outcome} without a comparison"
        return
    if unknown := sorted({c.claim for c in row.comparisons} - test.claims.keys()):
        yield f"compares {', '.join(unknown)}, which the contract does not claim"
    all_hold = all(comparison.holds for comparison in row.comparisons)
    if all_hold and row.outcome in ("falsified", "caught"):
        yield f"{row.outcome}, but every comparison holds"
    if row.outcome in ("held", "survived"):
        if not all_hold:
            yield f"{row.outcome}, but a comparison does not hold"
        compared = {comparison.claim for comparison in row.comparisons}
        if missing := [claim for claim in test.claims if claim not in compared]:
            yield f"{row.outcome}, but nothing was compared for {', '.join(missing)}"
