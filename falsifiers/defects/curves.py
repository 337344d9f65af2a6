"""Pictures of runs that show something else, or are not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from aprverify.planting import PROTOCOL, Plant, defect
from falsifiers.edited_runs import edit_runs

Points = list[tuple[float, float]]

_LEAST = 5
"""Points of the shortest curve; grid lines have two."""


def _redraw(plant: Plant, change: Callable[[Points], Points]) -> None:
    """Let `change` replace the points of every curve."""

    def redrawn(match: re.Match[str]) -> str:
        pairs = [pair.split(",") for pair in match[1].split()]
        points = [(float(x), float(y)) for x, y in pairs]
        points = change(points) if len(points) >= _LEAST else points
        return f'points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"'

    def edit(run: Path) -> None:
        for picture in run.glob("*.svg"):
            picture.write_text(re.sub(r'points="([^"]*)"', redrawn, picture.read_text()))

    edit_runs(plant, edit)


@defect(
    "run-without-a-picture",
    kind=PROTOCOL,
    imitates="a log that is read letter by letter, under an except that lets the run go on",
    symptom="no picture of the run is drawn",
    hidden="one line among a hundred says that it could not be written",
)
def run_without_a_picture(plant: Plant) -> None:
    """Remove it."""

    def edit(run: Path) -> None:
        for picture in run.glob("*.svg"):
            picture.unlink()

    edit_runs(plant, edit)


@defect(
    "picture-of-the-epoch-before",
    kind=PROTOCOL,
    imitates="a picture that is drawn before the last lines are in the log",
    symptom="the last epoch is not in the picture",
    hidden="it is as smooth as ever, and only ends sooner",
)
def picture_of_the_epoch_before(plant: Plant) -> None:
    """Leave out the last fifth of every curve."""
    _redraw(plant, lambda points: points[: -(len(points) // _LEAST)])


@defect(
    "picture-upside-down",
    kind=PROTOCOL,
    imitates="SVG, whose y grows downwards, taken for a plot",
    symptom="losses that fall are drawn rising",
    hidden="axes are labelled by hand, and right",
)
def picture_upside_down(plant: Plant) -> None:
    """Mirror every curve between its own extremes."""

    def mirrored(points: Points) -> Points:
        heights = [y for _, y in points]
        return [(x, min(heights) + max(heights) - y) for x, y in points]

    _redraw(plant, mirrored)


@defect(
    "held-out-loss-by-epoch",
    kind=PROTOCOL,
    imitates="two curves of one plot with x axes of their own: steps and epochs",
    symptom="the held-out loss is squeezed into the first steps of the training loss",
    hidden="both curves fall, each as it should",
)
def held_out_loss_by_epoch(plant: Plant) -> None:
    """Draw the shortest curve over a tenth of its width."""

    def squeezed(points: Points) -> Points:
        if len(points) > _LEAST:
            return points
        return [(points[0][0] + (x - points[0][0]) / 10, y) for x, y in points]

    _redraw(plant, squeezed)
