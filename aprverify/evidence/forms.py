"""Lines of one form are validated once: a schema check of every line would take most of the time.

The form of a line is its shape with every value replaced by what the schema could ask of it: the
type, the sign of a number, the patterns that a text matches, the text itself where the schema
names it. Lines of one form are therefore all valid, or none is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
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
        self._patterns = [re.compile(part["pattern"]).search for part in parts if "pattern" in part]
        self._texts: dict[str, object] = {text: text for text in named}
        self._valid: set[object] = set()
        self._forms: dict[type, Callable[[Any], object]] = {
            dict: self._object,
            list: self._array,
            str: self._text,
            int: lambda value: (int, bisect_right(self._least_integers, value)),
            float: lambda value: (float, bisect_right(self._least_numbers, value)),
            bool: type,
            type(None): type,
        }

    def form(self, value: Any) -> object:
        """What the schema can tell apart in a JSON value."""
        return self._forms[type(value)](value)

    def is_known(self, form: object) -> bool:
        """Whether a line of this form was valid."""
        return form in self._valid

    def remember(self, form: object) -> None:
        """A line of this form was valid."""
        self._valid.add(form)

    def _object(self, value: dict[str, Any]) -> object:
        # Most values are texts that stand in many rows: a call for each would take twice as long.
        known, new, forms = self._texts.get, self._text, self._forms
        parts: list[object] = list(value)
        add = parts.append
        for part in value.values():
            if type(part) is str:
                add(known(part) or new(part))
            else:
                add(forms[type(part)](part))
        return tuple(parts)

    def _array(self, value: list[Any]) -> object:
        # Every item is asked the same, and none how many there are.
        return frozenset([self._forms[type(item)](item) for item in value])

    def _text(self, text: str) -> object:
        if (found := self._texts.get(text)) is None:
            matches = [search(text) is not None for search in self._patterns]
            found = self._texts[text] = (str, text != "", *matches)
        return found


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
