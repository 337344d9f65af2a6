"""Comparisons for a reader: the one that decides an entry, and all of them with every digit."""

from __future__ import annotations

import math
from typing import Any

from aprverify.evidence.answers import tolerances
from aprverify.evidence.closest import Near, tolerance_margin
from aprverify.evidence.markdown import clip, observed_and_bound
from aprverify.evidence.records import Comparison, Row
from aprverify.views.html.markup import Markup, element
from aprverify.views.html.values import exact

CELL = 60
NOTHING = element("td", "–", class_="none")


def deciding(row: Row) -> Near | None:
    """The first comparison that fails, or else the one nearest to failing."""
    found = [Near(tolerance_margin(c, row.comparisons), row, c) for c in row.comparisons]
    failed = (near for near in found if not near.comparison.holds)
    return next(failed, None) or min(found, key=_distance, default=None)


def _distance(near: Near) -> float:
    # Texts and exact comparisons have no margin: they are shown only where nothing else is.
    return math.inf if near.margin is None else near.margin


def figures(near: Near | None, fragment: str | None = None) -> list[Markup]:
    """The cells observed, bound and margin, each with what it sorts by; `fragment`: a link."""
    if near is None:
        return [NOTHING, NOTHING, NOTHING]
    observed, bound = observed_and_bound(near.comparison)
    shown = element("code", clip(observed, CELL))
    linked = shown if fragment is None else element("a", shown, href=f"#{fragment}")
    return [
        element("td", linked, data_v=_order(near.comparison.observed)),
        element("td", element("code", clip(bound, CELL)), data_v=_order(near.comparison.bound)),
        _margin(near.margin),
    ]


def _margin(margin: float | None) -> Markup:
    order = _order(margin)
    return NOTHING if order is None else element("td", tolerances(margin), data_v=order)


def _order(value: Any) -> str | None:
    """What a script can sort by as a number; None for what has no place among numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return str(value).replace("inf", "Infinity")


def every_comparison(row: Row) -> Markup:
    """A table of all comparisons of an entry, nothing rounded and nothing cut."""
    head = ("claim", "comparison", "observed", "bound", "margin", "holds")
    return element(
        "table",
        element("caption", "Comparisons"),
        element("thead", element("tr", [element("th", name, scope="col") for name in head])),
        element("tbody", [_line(comparison, row) for comparison in row.comparisons]),
        class_="comparisons",
    )


def _line(comparison: Comparison, row: Row) -> Markup:
    unit = f" {comparison.unit}" if comparison.unit not in ("", "1") else ""
    return element(
        "tr",
        element("th", comparison.claim, scope="row"),
        element("td", element("code", comparison.text)),
        element("td", element("code", exact(comparison.observed))),
        element("td", element("code", f"{comparison.op} {exact(comparison.bound)}{unit}")),
        element("td", tolerances(tolerance_margin(comparison, row.comparisons))),
        element("td", "yes" if comparison.holds else element("strong", "no")),
        class_=None if comparison.holds else "fails",
    )
