"""Which of the recorded series there is a picture of, and the comparison that judges each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aprverify.evidence.records import Comparison, Row
from aprverify.evidence.series import Series, disagreement


def claims_with_verdict(rows: Iterable[Row]) -> list[Row]:
    """Those that pictures of a whole run show: no planted defect, nothing that broke."""
    return [row for row in rows if row.outcome in ("held", "falsified")]


def curves(row: Row) -> list[Series]:
    """Its series that no claim judges."""
    return [series for series in row.series if series.claim is None]


def judged(row: Row) -> Iterator[tuple[Series, Comparison]]:
    """Its series that a claim judges, each with that claim's comparison, where it was made."""
    for series in row.series:
        compared = [c for c in row.comparisons if series.claim == c.claim]
        if compared and disagreement(series, compared) is None:
            yield series, compared[0]
