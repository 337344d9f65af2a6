"""Does the picture of a run show the numbers of its log?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Points = NDArray[np.float64]

LOGGED = ("train_loss", "lr", "grad_norm", "tokens_per_sec")
NOWHERE = 1.0
"""How far off a curve is that is not in the picture: its whole extent."""


def falsify_picture_shows_the_log(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """For each number of the log, and the held-out loss, there is a curve through all its points.

    Axes are the picture's own business: any scale will do, if it is one, and points upwards. The
    held-out loss has to be on that of the training loss.
    """
    import numpy as np

    from falsifiers.run_directory import RunRecord
    from falsifiers.tiny_runs import tiny_run

    folder = subject.run_directory(tiny_run(subject, case.run, configuration, case.device).folder)
    run = RunRecord(folder)
    curves = _curves(subject, folder)
    off, frame = {}, None
    for name in LOGGED:
        points = np.array([[line["step"], line[name]] for line in run.log], dtype=np.float64)
        off[name], found = _nearest(curves, points)
        frame = found if name == "train_loss" else frame
    ends = [epoch.checkpoint.training["step"] for epoch in run.epochs]
    held_out = np.array([ends, run.val_losses]).T
    off["held-out"] = NOWHERE if frame is None else _nearest(curves, held_out, frame)[0]
    worst = max(off, key=lambda name: off[name])
    measured(
        curves=len(off),
        steps=len(run.log),
        epochs=len(run.epochs),
        missing=sum(error >= NOWHERE for error in off.values()),
        largest_error=off[worst],
        worst=worst,
    )


def _curves(subject: Subject, folder: Path) -> list[Points]:
    """The points of every polyline in the picture; none where there is no picture."""
    from xml.etree import ElementTree

    import numpy as np

    try:
        found = ElementTree.parse(subject.picture(folder)).findall(".//{*}polyline")
    except (OSError, ElementTree.ParseError):
        return []
    lines = (element.get("points", "") for element in found)
    pairs = ([pair.split(",") for pair in line.split()] for line in lines)
    return [np.array(points, dtype=np.float64) for points in pairs if points]


def _nearest(
    curves: list[Points], points: Points, frame: Points | None = None
) -> tuple[float, Points | None]:
    """The largest error of the curve that shows `points` best, and the frame that it is drawn in.

    A frame is offset and scale by axis. An error is a share of the curve's extent on its axis; of a
    curve in a given frame, of what the frame makes of the points.
    """
    best, chosen = NOWHERE, None
    for curve in curves:
        if len(curve) != len(points):
            continue
        own = _frame(points, curve) if frame is None else frame
        drawn = own[0] + own[1] * points
        extent = drawn.max(axis=0) - drawn.min(axis=0)
        if own[1][0] <= 0 or own[1][1] >= 0 or not extent.all():  # in SVG, down is more
            continue
        error = float((abs(curve - drawn) / extent).max())
        if error < best:
            best, chosen = error, own
    return best, chosen


def _frame(points: Points, curve: Points) -> Points:
    """Offset and scale of each axis, ``[2, axis]``, by least squares."""
    import numpy as np

    fits = [np.polyfit(points[:, axis], curve[:, axis], 1)[::-1] for axis in (0, 1)]
    return np.array(fits).T
