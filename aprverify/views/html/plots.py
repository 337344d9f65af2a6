"""What was recorded by step or by depth: as pictures, and every point as it was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from aprverify.evidence.markdown import count
from aprverify.evidence.records import Row, Run
from aprverify.evidence.series import Series
from aprverify.views.html.markup import Markup, element, visible
from aprverify.views.html.values import exact
from aprverify.views.pictures.curves import curves_of, errors_of, run_curves, run_errors
from aprverify.views.pictures.plot import HEIGHT, WIDTH, Plot, drawn

FRAGMENT = "recorded"
TITLE = "Curves and errors by depth"


def recorded(run: Run) -> Markup | None:
    """The curves and errors of all claims that reached a verdict; None without any."""
    found = [*run_curves(run), *run_errors(run)]
    if not found:
        return None
    about = "Values by step, and errors by depth in units of their bound, a line a case."
    return element(
        "section",
        element("h2", TITLE),
        element("p", about),
        [_picture(plot) for plot in found],
        id=FRAGMENT,
    )


def plots(row: Row) -> Iterator[Markup]:
    """A picture for each pair of axes and each claim, then the points of every series."""
    yield from (_picture(plot) for plot in (*curves_of(row), *errors_of([row])))
    yield from (_points(series) for series in row.series)


def _readable(plot: Plot) -> Plot:
    """With every character to be seen, as everywhere on the page."""
    lines = [replace(one, says=visible(one.says), end=visible(one.end)) for one in plot.lines]
    title, x_label, y_label = map(visible, (plot.title, plot.x_label, plot.y_label))
    return replace(plot, title=title, x_label=x_label, y_label=y_label, lines=lines)


def _picture(plot: Plot) -> Markup:
    readable = _readable(plot)
    return element(
        "svg",
        Markup("".join(drawn(readable, 0))),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=readable.title,
        class_="plot",
    )


def _points(series: Series) -> Markup:
    thinned = f" of {series.measured}" if series.measured > len(series.x) else ""
    told = f"{series.name}: {count(len(series.x), 'point')}{thinned}"
    pairs = ((x, "not finite" if y is None else y) for x, y in series.points)
    said = "; ".join(f"{exact(x)}, {exact(y)}" for x, y in pairs)
    axes = f"{series.x_axis}; {series.y_axis}: "
    return element("details", element("summary", told), axes, element("code", said))
