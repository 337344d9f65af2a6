"""Lines of one form are validated once: a schema check of every line would take most of the time.

The form of a line is its shape with every value replaced by what the schema could ask of it: the
type, the sign of a number, the patterns that a text matches, the text itself where the schema
names it. Lines of one form are therefore all valid, or none is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

_ASKS_OF_VALUES = frozenset({"const", "enum", "minLength", "minimum", "pattern", "type"})
_ASKS_OF_SHAPES = frozenset(
    {"additionalProperties", "allOf", "items", "oneOf", "properties", "required"}
)
_SAYS_NOTHING = frozenset({"$defs", "$id", "$ref", "$schema", "description", "if", "then", "title"})
_KNOWN = _ASKS_OF_VALUES | _ASKS_OF_SHAPES | _SAYS_NOTHING
_MAPS_OF_SCHEMAS = frozenset({"$defs", "properties"})


class Forms:
    """Remembers the forms of lines that were found valid under one schema.

    Raises:
        ValueError: the schema asks for something that a form does not hold.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        parts = list(_schemas(schema))
        unknown = {name for part in parts for name in part} - _KNOWN
        named = [part["const"] for part in parts if "const" in part]
        named += [value for part in parts for value in part.get("enum", ())]
        lengths = {part.get("minLength", 1) for part in parts}
        if unknown or lengths != {1} or not all(isinstance(text, str) for text in named):
            raise ValueError(f"forms do not hold what this schema asks for: {sorted(unknown)}")
        least = [(part["minimum"], part.get("type")) for part in parts if "minimum" in part]
        self._least_integers = sorted({value for value, _ in least})
        self._least_numbers = sorted({value for value, kind in least if kind != "integer"})
        self._patterns = [re.compile(part["pattern"]) for part in parts if "pattern" in part]
        self._texts: dict[str, object] = {text: text for text in named}
        self._valid: set[object] = set()

    def form(self, value: Any) -> object:
        """What the schema can tell apart in a JSON value."""
        kind = type(value)
        if kind is str:
            return self._texts.get(value) or self._text(value)
        if kind is dict:
            return (*value, *map(self.form, value.values()))
        if kind is list:
            # Every item is asked the same, and none how many there are.
            return frozenset(map(self.form, value))
        if kind is bool or value is None:
            return kind
        if kind is int:
            return (int, bisect_right(self._least_integers, value))
        return (float, bisect_right(self._least_numbers, value))

    def is_known(self, form: object) -> bool:
        """Whether a line of this form was valid."""
        return form in self._valid

    def remember(self, form: object) -> None:
        """A line of this form was valid."""
        self._valid.add(form)

    def _text(self, text: str) -> object:
        # Most texts of a run stand in many of its rows.
        found = (str, text != "", *(pattern.search(text) is not None for pattern in self._patterns))
        return self._texts.setdefault(text, found)


def _schemas(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A schema and all those within it."""
    yield schema
    for name, value in schema.items():
        if name in _MAPS_OF_SCHEMAS:
            for part in value.values():
                if isinstance(part, dict):
                    yield from _schemas(part)
        elif name not in _ASKS_OF_VALUES:
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, dict):
                    yield from _schemas(part)
