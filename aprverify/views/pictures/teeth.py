"""The teeth of a run as a matrix: planted defects down, falsification tests across."""

from __future__ import annotations

from aprverify.evidence.order import in_plan_order
from aprverify.evidence.records import Run
from aprverify.evidence.teeth import Pair, pairs_of
from aprverify.views.pictures.svg import CHARACTER, cell, clipped, document, label, line

_KINDS = {
    "caught": ("good", "C"),
    "survived": ("bad", "S"),
    "broken": ("bad", "B"),
    "not_run": ("none", "N"),
    "inapplicable": ("none", "A"),
    "absent": ("none", "N"),
}
_WORDS = "C caught   S survived   B broken   N not run   A does not apply   (blank: not declared)"
_SIZE = 12
_STEP = 14
_LABEL = 44
_LEFT = _LABEL * CHARACTER + 16


def render_teeth(run: Run) -> str:
    """Every declared pair of the tests that the run is about."""
    pairs = pairs_of(in_plan_order(run))
    tests = list(dict.fromkeys(pair.test for pair in pairs))
    defects = list(dict.fromkeys(pair.defect for pair in pairs))
    top = 34 + CHARACTER * max((len(test) for test in tests), default=0)
    width = _LEFT + _STEP * len(tests) + 16
    bottom = top + _STEP * len(defects)
    parts = [label(8, 18, _WORDS, kind="faint")]
    for i, test in enumerate(tests):
        x = _LEFT + _STEP * i
        parts.append(label(x + 10, top - 6, test, turn=-90))
        parts.append(line(x + _SIZE / 2, top, x + _SIZE / 2, bottom))
    for i, defect in enumerate(defects):
        y = top + _STEP * i
        parts.append(label(_LEFT - 8, y + 9, clipped(defect, _LABEL), anchor="end"))
        parts.append(line(_LEFT, y + _SIZE / 2, width - 16, y + _SIZE / 2))
    for pair in pairs:
        place = (_LEFT + _STEP * tests.index(pair.test), top + _STEP * defects.index(pair.defect))
        parts.append(_cell(*place, pair))
    about = "Which planted defects each falsification test caught, of those that it declares."
    least = 16 + CHARACTER * len(_WORDS)
    return document(max(width, least), bottom + 12, "Teeth", about, parts)


def _cell(x: float, y: float, pair: Pair) -> str:
    kind, letter = _KINDS[pair.overall]
    return cell(x, y, _SIZE, kind, letter, f"{pair.test}, {pair.defect}: {pair.overall}")
