"""Recorded values with nothing rounded, and lists of named values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from aprverify.views.html.markup import Markup, element, join

# No falsifier nests values like this; a forged run may, to exhaust the stack of its reader.
_DEEPEST = 40


def exact(value: Any, depth: int = 0) -> str:
    """A recorded value with all its digits; texts as they are."""
    if isinstance(value, (dict, list, tuple)) and depth == _DEEPEST:
        return "(nested more deeply than is shown)"
    if isinstance(value, dict):
        inner = (f"{name}: {exact(item, depth + 1)}" for name, item in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(exact(item, depth + 1) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    return str(value)


def facts(pairs: Sequence[tuple[str, str | Sequence[str]]]) -> Markup:
    """A list of names and values; a value of several parts shows them in a row. Empty ones go."""
    return element("dl", [_fact(name, value) for name, value in pairs if value], class_="facts")


def _fact(name: str, value: str | Sequence[str]) -> Markup:
    shown = value if isinstance(value, str) else join(value, ", ")
    return join((element("dt", name), element("dd", shown)))
