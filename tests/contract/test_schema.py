"""Contracts are checked by the library with less ado, and no fault is lost on the way."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from aprverify.contract import schema
from tests.conftest import contract

PROBES = (None, True, -1, 0.5, "", "x", "x" * 9, [], ["x"], [1, 1], {}, {"x": 1})
POLICY = {
    "policy": "aprverify-policy/1",
    "required": ["GATE-A"],
    "defaults": {"environments": {"cuda": {"card": "*H100*", "torch": ">=2.11"}}},
    "gates": [{"gate": "GATE-A", "lanes": ["cpu"], "max_age_days": 3}],
    "waivers": [
        {
            "gate": "GATE-A",
            "reason": "a reason",
            "owner": "ada",
            "expires": "2027-01-31",
            "status": "PENDING",
        }
    ],
}


def altered(value: Any) -> Iterator[Any]:
    """Copies with one value replaced, dropped or added, at any depth."""
    yield from PROBES
    if isinstance(value, dict):
        yield {**value, "surplus": 1}
        for name in value:
            yield {k: v for k, v in value.items() if k != name}
            yield from ({**value, name: probe} for probe in altered(value[name]))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from ([*value[:index], p, *value[index + 1 :]] for p in altered(item))


def told(errors: Iterator[Any]) -> list[tuple[str, str, str, bool]]:
    """What `fault` makes its words of."""
    return sorted(
        (error.json_path, error.message, error.validator, "propertyNames" in error.schema_path)
        for error in errors
    )


@pytest.mark.parametrize(("kind", "body"), [("contract", contract()), ("policy", POLICY)])
def test_every_fault_that_the_library_finds_is_found(kind: str, body: dict[str, Any]) -> None:
    """Every single change to a sound document, and no fault that it does not find."""
    text = resources.files("aprverify").joinpath(f"schemas/{kind}.schema.json").read_text("utf-8")
    library = Draft202012Validator(json.loads(text))
    assert not told(library.iter_errors(body))
    verdicts = set()
    for document in altered(copy.deepcopy(body)):
        found = told(library.iter_errors(document))
        assert told(schema.validator(kind).iter_errors(document)) == found, document
        verdicts.add(bool(found))
    assert verdicts == {True, False}
