"""JSON Schemas of the files that people write, and their faults in words with line and fix."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator, validators

from aprverify.contract.document import Document

_PLAIN = frozenset({"const", "description", "enum", "minLength", "minimum", "pattern", "type"})
_FULL = Draft202012Validator.VALIDATORS


def _is_valid(checking: Any, value: Any, asked: Any) -> bool:
    # By the library's own keywords, but without the validator that it makes for every value, which
    # takes most of the time. What this does not settle is checked in full, and so is every fault.
    if not asked.keys() <= _PLAIN:
        return False
    checks = ((_FULL.get(name), wanted) for name, wanted in asked.items())
    return not any(
        any(check(checking, wanted, value, asked) or ()) for check, wanted in checks if check
    )


def _items(checking: Any, asked: Any, values: Any, within: Any) -> Iterator[Any]:
    if not isinstance(values, list) or not all(_is_valid(checking, v, asked) for v in values):
        yield from _FULL["items"](checking, asked, values, within)


def _properties(checking: Any, properties: Any, value: Any, within: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        asked = ((name, properties[name]) for name in value if name in properties)
        properties = {
            name: part for name, part in asked if not _is_valid(checking, value[name], part)
        }
    yield from _FULL["properties"](checking, properties, value, within)


_Validator = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"items": _items, "properties": _properties}
)


@cache
def validator(kind: str) -> Draft202012Validator:
    """The validator of a ``contract``, a ``policy`` or a line of a ``campaign``."""
    text = resources.files("aprverify").joinpath(_path(kind)).read_text("utf-8")
    schema = json.loads(text)
    made: Draft202012Validator = _Validator(_written_out(schema, schema["$defs"]))
    return made


def _written_out(part: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema with plain definitions put where it refers to them."""
    if isinstance(part, list):
        return [_written_out(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    named = str(part.get("$ref", "")).removeprefix("#/$defs/")
    if named in definitions and definitions[named].keys() <= _PLAIN:
        part = {**definitions[named], **{k: v for k, v in part.items() if k != "$ref"}}
    return {name: _written_out(item, definitions) for name, item in part.items()}


def fault(document: Document, error: Any, kind: str) -> tuple[int, str, str]:
    """Line, what is wrong and what to do, of an error that `validator` found."""
    path = tuple(error.absolute_path)
    where = ".".join(map(str, path)) or kind
    line = document.line(*path)
    fix = f"see aprverify/{_path(kind)}"
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        extra = next((key for key in error.instance if key not in known), "")
        line = document.line(*path, extra)
        guess = get_close_matches(extra, known, 1)
        fix = f"did you mean {guess[0]!r}?" if guess else f"known here: {', '.join(known)}"
    elif error.validator == "required":
        fix = "add the field"
    elif "propertyNames" in error.schema_path:
        line = document.line(*path, error.instance)
        fix = "a name is lower_case, with digits and underscores"
    return line, f"{where}: {error.message[:200]}", fix


def _path(kind: str) -> str:
    return f"schemas/{kind}.schema.json"
