"""JSON Schemas of the YAML files that people write, and their faults in words with line and fix."""

from __future__ import annotations

import json
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator

from aprverify.contract.document import Document


@cache
def validator(kind: str) -> Draft202012Validator:
    """The validator of a ``contract`` or a ``policy``."""
    text = resources.files("aprverify").joinpath(_path(kind)).read_text("utf-8")
    return Draft202012Validator(json.loads(text))


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
