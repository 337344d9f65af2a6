"""``curves.svg``: loss, learning rate, gradient norm and throughput of a run on one page.

Written out as SVG by hand: four line charts need no plotting library, and this way the picture is
there on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from trainer.run.metrics import StepMetrics, read_log
from trainer.weights.durable import durable_file

_WIDTH, _HEIGHT, _LEFT, _TOP = 520, 240, 64, 36
_POINTS = 800
_SMOOTHING = 50
"""Steps that the smoothed training loss looks back on, fewer in a short run."""

Series = tuple[str, str, Sequence[tuple[float, float]]]
"""Label, colour, and points (step, value)."""


def write_curves(path: Path, log: Path, val_losses: Sequence[float], steps_per_epoch: int) -> None:
    """Draw the run logged at `log`; `val_losses` is the held-out loss of each epoch so far."""
    metrics = read_log(log)
    if metrics:
        with durable_file(path) as file:
            file.write(_page(metrics, val_losses, steps_per_epoch).encode())


def _page(metrics: list[StepMetrics], val_losses: Sequence[float], steps_per_epoch: int) -> str:
    last = metrics[-1].step + 1
    held_out = [
        (float(min((epoch + 1) * steps_per_epoch, last)), loss)
        for epoch, loss in enumerate(val_losses)
    ]
    losses = [(float(m.step), m.train_loss) for m in metrics]
    charts = [
        _chart(
            "loss, nats per token",
            [
                ("train", "#9db7d5", _thinned(losses)),
                ("train, smoothed", "#1f5fa8", _thinned(_smoothed(losses))),
                ("held-out", "#c8501e", held_out),
            ],
        ),
        _chart("learning rate", [("", "#1f5fa8", _thinned([(m.step, m.lr) for m in metrics]))]),
        _chart(
            "gradient norm", [("", "#1f5fa8", _thinned([(m.step, m.grad_norm) for m in metrics]))]
        ),
        _chart(
            "tokens per second",
            [("", "#1f5fa8", _thinned([(m.step, m.tokens_per_sec) for m in metrics]))],
        ),
    ]
    placed = "".join(
        f'<g transform="translate({index % 2 * _WIDTH} {index // 2 * _HEIGHT})">{chart}</g>'
        for index, chart in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * _WIDTH} {2 * _HEIGHT}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f"{placed}</svg>\n"
    )


def _chart(title: str, series: Sequence[Series]) -> str:
    points = [point for _, _, line in series for point in line]
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _span([y for _, y in points])
    inner_width, inner_height = _WIDTH - _LEFT - 20, _HEIGHT - _TOP - 30

    def place(x: float, y: float) -> str:
        across = _LEFT + (x - x_low) / (x_high - x_low) * inner_width
        down = _TOP + (y_high - y) / (y_high - y_low) * inner_height
        return f"{across:.1f},{down:.1f}"

    parts = [f'<text x="{_LEFT}" y="16" font-size="13">{escape(title)}</text>']
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = y_low + fraction * (y_high - y_low), x_low + fraction * (x_high - x_low)
        left, right = place(x_low, y), place(x_high, y)
        down = left.split(",")[1]
        across = place(x, y_low).split(",")[0]
        parts.append(f'<polyline points="{left} {right}" stroke="#ddd" fill="none"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{down}" text-anchor="end">{y:.4g}</text>')
        parts.append(f'<text x="{across}" y="{_HEIGHT - 14}" text-anchor="middle">{x:.4g}</text>')
    legend = _LEFT
    for label, colour, line in series:
        path = " ".join(place(x, y) for x, y in line)
        parts.append(f'<polyline points="{path}" stroke="{colour}" fill="none"/>')
        if label and len(line) < 50:
            parts += [
                f'<circle cx="{point.split(",")[0]}" cy="{point.split(",")[1]}" r="2.5" '
                f'fill="{colour}"/>'
                for point in (place(x, y) for x, y in line)
            ]
        parts.append(f'<text x="{legend}" y="30" fill="{colour}">{escape(label)}</text>')
        legend += 7 * len(label) + 12
    return "".join(parts)


def _smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Exponential moving average, its start corrected for what it has not yet seen."""
    keep = 1 - 1 / min(_SMOOTHING, max(1, len(points) // 4))
    total = weight = 0.0
    result = []
    for x, y in points:
        total, weight = keep * total + (1 - keep) * y, keep * weight + (1 - keep)
        result.append((x, total / weight))
    return result


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_POINTS` points, each the mean of its neighbours, so that no spike is skipped."""
    size = math.ceil(len(points) / _POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) / 10 or 1.0
        return low - margin, high + margin
    return low, high
