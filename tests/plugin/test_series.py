"""Series through the plugin: what a falsifier records is on its row, and nothing malformed is."""

from __future__ import annotations

import pytest

from aprverify.evidence.records import Row

from ..conftest import build_toy, contract, falsification, rows_by_test

_FALSIFIERS = """
import math

class Scalar:
    def __init__(self, value):
        self.value = value
    def item(self):
        return self.value

AXES = {"x": "optimizer steps", "y": "loss", "y_unit": "nats/token"}

def falsify_curve(subject, case, measured, series):
    series("training", [(1, 2.5), (2, math.nan), (3, Scalar(0.5)), (4, 10**400)], **AXES)
    series("nothing", iter([]), **AXES)
    measured(x=subject.total([1, 2]))

def falsify_long(subject, case, measured, series):
    series("training", ((i, -i) for i in range(5000)), **AXES)
    measured(x=3)

def falsify_error(subject, case, measured, series):
    found = subject.total([1, 2])
    series("by depth", [(0, 1.0), (1, found)], x="depth", y="error", claim="sum")
    measured(x=found)

def falsify_false(subject, case, measured, series):
    series("by depth", [(0, 1.0), (1, 4)], x="depth", y="error", claim="sum")
    measured(x=4)

def falsify_other_error(subject, case, measured, series):
    series("by depth", [(0, 1.0), (1, 2.0)], x="depth", y="error", claim="sum")
    measured(x=3)

def falsify_false_and_other_error(subject, case, measured, series):
    series("by depth", [(0, 1.0), (1, 2.0)], x="depth", y="error", claim="sum")
    measured(x=4)

def falsify_no_claim(subject, case, measured, series):
    series("by depth", [(0, 3)], x="depth", y="error", claim="product")
    measured(x=3)

def falsify_backwards(subject, case, measured, series):
    try:
        series("training", [(2, 1.0), (1, 1.0)], **AXES)
    except Exception:
        pass
    measured(x=3)

def falsify_nowhere(subject, case, measured, series):
    series("training", [(math.inf, 1.0)], **AXES)
    measured(x=3)

def falsify_text(subject, case, measured, series):
    series("training", [(1, "1.0")], **AXES)
    measured(x=3)

def falsify_twice(subject, case, measured, series):
    series("training", [(1, 1.0)], **AXES)
    series("training", [(1, 1.0)], **AXES)
    measured(x=3)

def falsify_late(subject, case, measured, series):
    measured(x=3)
    series("training", [(1, 1.0)], **AXES)
"""
_BROKEN = {
    "other-error": "which observed 3; its largest value is 2.0",
    "no-claim": "product is no claim of FALSIFY-TOY-001.no-claim",
    "backwards": "series 'training': x does not increase from point to point",
    "nowhere": "series training: x is inf, no finite number",
    "text": "series training: '1.0' is no number",
    "twice": "two series 'training'",
    "late": "series training came after measured(); record every series before it",
}
_NAMES = ("curve", "long", "error", "false", "false-and-other-error", *_BROKEN)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """One run of every falsifier, as the reader accepts it."""
    toy = build_toy(tmp_path_factory.mktemp("series") / "project")
    toy.write({"toysuite/falsify_toy.py": _FALSIFIERS})
    claims = [{"id": "sum", "expr": "x <= 3", "why": "one and two"}]
    tests = [
        falsification(f"FALSIFY-TOY-001.{n}", f"falsify_toy.falsify_{n.replace('-', '_')}",
                      claims=claims)
        for n in _NAMES
    ]  # fmt: skip
    toy.contract(contract(falsification_tests=tests, invariants=[], gates=[]))
    _, run = toy.record("--teeth", "declared", "-n2")
    return rows_by_test(run)


def test_a_series_is_on_the_row_of_its_entry(rows: dict[str, Row]) -> None:
    """What is not finite is a gap, a scalar with an item() a number; no points are no series."""
    assert rows["curve"].outcome == "held"
    (found,) = rows["curve"].series
    assert found.points == [(1, 2.5), (2, None), (3, 0.5), (4, None)]
    assert (found.name, found.x_axis, found.y_axis) == (
        "training", "optimizer steps", "loss, nats/token",
    )  # fmt: skip


def test_a_long_series_is_thinned_and_says_so(rows: dict[str, Row]) -> None:
    """A generator is enough; the first and the last stay."""
    (found,) = rows["long"].series
    assert found.measured == 5000 and len(found.x) <= 256
    assert (found.points[0], found.points[-1]) == ((0, 0), (4999, -4999))


def test_a_falsified_claim_has_its_series(rows: dict[str, Row]) -> None:
    """That is where a picture is looked at; a planted defect has its own, too."""
    assert rows["error"].outcome == "held" and rows["false"].outcome == "falsified"
    assert rows["error"].series[0].y == (1.0, 3)
    assert rows["false"].series[0].y == (1.0, 4)
    assert rows["error!one-more"].outcome == "caught"
    assert rows["error!one-more"].series[0].y == (1.0, 4)


@pytest.mark.parametrize("name", _BROKEN)
def test_a_malformed_series_breaks_its_entry(rows: dict[str, Row], name: str) -> None:
    """Swallowed or not; the entry is never held, and the run stays readable."""
    row = rows[name]
    assert row.outcome == "broken" and row.reason is not None
    assert _BROKEN[name] in row.reason.detail


def test_a_failed_claim_stays_falsified_whatever_its_series_says(rows: dict[str, Row]) -> None:
    """The verdict is what was compared; the series that contradicts it is left out."""
    assert rows["false-and-other-error"].outcome == "falsified"
    assert rows["false-and-other-error"].series == ()
