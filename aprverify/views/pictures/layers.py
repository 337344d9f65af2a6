"""In which layer the largest error of each parity claim stood, a dot a case.

Rows hold no error of every layer, only the largest and the name of what had it: that is drawn.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from aprverify.evidence.markdown import count, number
from aprverify.evidence.measured import Worst, worst_places
from aprverify.evidence.order import in_plan_order
from aprverify.evidence.records import Run
from aprverify.views.pictures.svg import CHARACTER, clipped, document, dot, label, line

_LABEL = 58
_LEFT = _LABEL * CHARACTER + 16
_STEP = 18
_ROW = 18
_TOP = 46


def render_layers(run: Run) -> str:
    """A row a claim's quantity, a column a layer; the last column is outside of all layers."""
    found = worst_places(in_plan_order(run).rows)
    rows: dict[str, list[Worst]] = defaultdict(list)
    for worst in found:
        rows[worst.name].append(worst)
    layers = 1 + max((w.layer for w in found if w.layer is not None), default=0)
    right, bottom = _LEFT + _STEP * (layers + 1), _TOP + _ROW * len(rows)
    parts = [label(8, 18, "layer of the largest error (– outside; size: cases)", kind="faint")]
    for layer in range(layers + 1):
        x = _LEFT + _STEP * layer + _STEP / 2
        parts.append(line(x, _TOP - 8, x, bottom))
        name = "–" if layer == layers else str(layer)
        parts.append(label(x, _TOP - 14, name, anchor="middle", kind="faint"))
    for i, (name, cases) in enumerate(rows.items()):
        parts += _row(_TOP + _ROW * i + _ROW / 2, name, cases, layers, right)
    about = "Of every case, the layer in which the error was largest; at the right the largest."
    return document(right + 24 * CHARACTER, bottom + 16, "Largest errors by layer", about, parts)


def _row(y: float, name: str, found: list[Worst], layers: int, right: float) -> list[str]:
    parts = [label(_LEFT - 10, y + 4, clipped(name, _LABEL), anchor="end")]
    largest = max(worst.error for worst in found)
    parts.append(label(right + 6, y + 4, f"at most {number(largest)}", kind="faint"))
    seen = Counter(layers if worst.layer is None else worst.layer for worst in found)
    for layer, cases in sorted(seen.items()):
        x = _LEFT + _STEP * layer + _STEP / 2
        parts.append(dot(x, y, "mark", f"{name}: {count(cases, 'case')}", min(2 + cases, 8)))
    return parts
