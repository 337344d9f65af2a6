"""What falsifiers recorded: losses by step as curves, errors by depth as shares of their bound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from aprverify.evidence.markdown import count, number
from aprverify.evidence.order import in_plan_order
from aprverify.evidence.recorded import claims_with_verdict, curves, judged
from aprverify.evidence.records import Comparison, Row, Run
from aprverify.evidence.series import Point, Series
from aprverify.views.pictures.plot import HEIGHT, WIDTH, Line, Plot, drawn
from aprverify.views.pictures.svg import document, label

_KINDS = ("mark", "other", "open", "none")
_MOST = 24

_Judged = tuple[Row, Series, Comparison]


def curves_of(row: Row) -> list[Plot]:
    """What it recorded that no claim judges: series with the same axes in one plot."""
    plots: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for series in curves(row):
        plots[series.x_axis, series.y_unit].append(series)
    return [_curves(row, x_label, found) for (x_label, _), found in plots.items()]


def errors_of(rows: Sequence[Row]) -> list[Plot]:
    """What they recorded that a claim judges: a plot a series of a test, a line a row."""
    plots: dict[tuple[str, str], list[_Judged]] = defaultdict(list)
    for row in rows:
        for series, comparison in judged(row):
            plots[row.test, series.name].append((row, series, comparison))
    return [_errors(f"{test} {name}", found) for (test, name), found in plots.items()]


def run_curves(run: Run) -> list[Plot]:
    """Those of the claims that reached a verdict, a plot a case."""
    rows = claims_with_verdict(in_plan_order(run).rows)
    return [plot for row in rows for plot in curves_of(row)]


def run_errors(run: Run) -> list[Plot]:
    """Those of the claims that reached a verdict, a plot a claim."""
    return errors_of(claims_with_verdict(in_plan_order(run).rows))


def render_curves(run: Run) -> str:
    """The picture of all curves."""
    about = "Values by step, a plot a case. Series of many points are thinned; peaks stay."
    return _picture("Recorded curves", about, run_curves(run))


def render_errors(run: Run) -> str:
    """The picture of all errors in units of their bound."""
    about = (
        "Errors by depth in units of their bound, a plot a claim, a line a case. At 1 an error "
        "stands at its bound; below it the claim holds."
    )
    return _picture("Errors in units of their bound", about, run_errors(run))


def _picture(title: str, about: str, plots: Sequence[Plot]) -> str:
    shown = plots[:_MOST]
    parts = [part for i, plot in enumerate(shown) for part in drawn(plot, 8 + HEIGHT * i)]
    bottom = 8 + HEIGHT * len(shown)
    if rest := len(plots) - len(shown):
        parts.append(label(8, bottom + 10, f"and {count(rest, 'more plot')}", kind="faint"))
    return document(WIDTH, bottom + 20, title, about, parts)


def _curves(row: Row, x_label: str, found: Sequence[Series]) -> Plot:
    labels = dict.fromkeys(series.y_axis for series in found)
    lines = [
        Line(series.points, _KINDS[i % len(_KINDS)], series.name, _ending(series))
        for i, series in enumerate(found)
    ]
    return Plot(row.key, x_label, "; ".join(labels), lines)


def _ending(series: Series) -> str:
    last = series.y[-1]
    return f"{series.name} {'not finite' if last is None else number(last)}"


def _errors(title: str, found: Sequence[_Judged]) -> Plot:
    lines = [
        Line(_shares(series, comparison), "mark" if comparison.holds else "bad", row.key)
        for row, series, comparison in found
    ]
    first = found[0][1]
    shares = [share for one in lines for _, share in one.points]
    finite = [share for share in shares if share is not None]
    whole = len(finite) == len(shares)
    most = f"at most {number(max(finite))} of the bound" if whole else "an error is not finite"
    y_label = f"{first.y_axis}, in units of its bound"
    cases = f"{title}: {count(len(lines), 'case')}, {most}"
    return Plot(cases, first.x_axis, y_label, lines, shares=True)


def _shares(series: Series, comparison: Comparison) -> list[Point]:
    return [(x, None if y is None else y / comparison.bound) for x, y in series.points]
