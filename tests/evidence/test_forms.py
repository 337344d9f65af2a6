"""Lines of one form are all valid or none is: what allows the reader to validate a form once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from aprverify.evidence import reader
from aprverify.evidence.forms import Forms
from aprverify.evidence.values import encode

from .builder import comparison, row, series

PROBES = (
    None, True, False, 0, 1, -1, 2**70, 0.0, 1.0, -1.0, 0.5, "", "x", "NaN", "held", "row", "full",
    "a" * 64, "A" * 64, "a" * 63, "env-0123456789ab", "2026-01-02T08:00:00Z", "2026-01-02", [], {},
    [1], ["x"], [[]], {"x": 1}, {"x": []}, [{"x": 1}],
)  # fmt: skip


def line(**changes: Any) -> dict[str, Any]:
    """A valid row line."""
    body = row("caught", defect="drop-bias", environment="env-0123456789ab", **changes)
    return {"type": "row", "seq": 3, "prev": "a" * 64, **encode(body)}


def altered(value: Any) -> Iterator[Any]:
    """Copies with one value replaced, dropped, added or repeated, at any depth."""
    yield from PROBES
    if isinstance(value, dict):
        for name in value:
            yield {k: v for k, v in value.items() if k != name}
            for probe in altered(value[name]):
                yield {**value, name: copy.deepcopy(probe)}
        yield {**value, "surplus": 1}
    elif isinstance(value, list):
        yield [*value, *value]
        for index, item in enumerate(value):
            for probe in altered(item):
                yield [*value[:index], copy.deepcopy(probe), *value[index + 1 :]]


def test_a_line_of_a_known_form_is_valid() -> None:
    """Every single change to a row: where the schema tells two lines apart, so does the form."""
    forms = Forms(reader._schema())
    validator = reader._validators()["row"]
    lines = [line(), line(comparisons=[comparison(), comparison("a", "b", "in")])]
    lines.append(line(series=[series(y=[0.5, None, 2]), series(name="e", claim="c1")]))
    verdicts: dict[object, bool] = {}
    seen = 0
    for body in (one for start in lines for one in altered(start)):
        if isinstance(body, dict):
            valid = validator.is_valid(body)
            assert verdicts.setdefault(forms.form(body), valid) is valid, body
            seen += valid
    assert 100 < seen < len(verdicts) * 10
    assert set(verdicts.values()) == {True, False}


def test_only_what_was_remembered_is_known() -> None:
    """Asking is not remembering."""
    forms = Forms(reader._schema())
    form = forms.form(line())
    assert not forms.is_known(form)
    forms.remember(form)
    assert forms.is_known(forms.form(line(seconds=7.5)))
    assert not forms.is_known(forms.form(line(seconds=-7.5)))


@pytest.mark.parametrize(
    "schema",
    [
        {"maxLength": 3},
        {"minLength": 2},
        {"enum": [1]},
        {"properties": {"x": {"items": {"uniqueItems": True}}}},
        {"$defs": {"x": {"oneOf": [{"const": 2}]}}},
    ],
)
def test_a_schema_that_asks_for_more_is_not_taken(schema: dict[str, Any]) -> None:
    """Rather no reader than one that lets through what the schema forbids."""
    with pytest.raises(ValueError, match="forms do not hold"):
        Forms(schema)
