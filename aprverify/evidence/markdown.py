"""Numbers and tables as the reports write them, so that all views write them alike."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from aprverify.evidence.records import Comparison


def number(value: Any) -> str:
    """A value for a reader: integers whole, other numbers to 4 significant digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(number(item) for item in value) + "]"
    return str(value)


def observed_and_bound(comparison: Comparison) -> tuple[str, str]:
    """Both sides of a comparison, the bound with its operator and unit.

    Two numbers that differ are never written alike: they then get all their digits.
    """
    observed, bound = number(comparison.observed), number(comparison.bound)
    if observed == bound and comparison.observed != comparison.bound:
        observed, bound = repr(comparison.observed), repr(comparison.bound)
    unit = f" {comparison.unit}" if comparison.unit not in ("", "1") else ""
    return observed, f"{comparison.op} {bound}{unit}"


def margin(comparison: Comparison) -> str:
    """The margin, signed; a dash where the comparison has none, or no finite one."""
    if comparison.margin is None or not math.isfinite(comparison.margin):
        return "–"
    return f"{comparison.margin:+.3g}"


def clip(text: str, width: int) -> str:
    """At most `width` characters on one line, with an ellipsis where something is missing."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def escape(text: str) -> str:
    """Text that stays inside its cell and its line, and is never read as markup."""
    line = " ".join(text.split())
    for character in "\\`*<>|":
        line = line.replace(character, f"\\{character}")
    return line.replace("](", "]\\(")


def code(text: str) -> str:
    """Text as inline code, safe inside a table."""
    line = " ".join(text.split())
    fence = "`"
    while fence in line:
        fence += "`"
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def wrapped_code(text: str, width: int, after: str = ",") -> str:
    """Text as inline code in one cell, broken after commas where it is too long for a line.

    `after` are the characters that it may be broken after instead.
    """
    lines = [""]
    for piece in re.split(f"(?<=[{re.escape(after)}])", " ".join(text.split())):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return "<br>".join(code(line) for line in lines)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> list[str]:
    """A Markdown table; `align` has `r` for each column of figures, `l` for others."""
    marks = ["--:" if letter == "r" else "---" for letter in align.ljust(len(head), "l")]
    lines = [head, marks, *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def details(summary: str, lines: Sequence[str]) -> list[str]:
    """A part that opens on a click."""
    return ["<details>", f"<summary>{summary}</summary>", "", *lines, "", "</details>"]


def count(amount: int, noun: str, plural: str = "") -> str:
    """``1 claim``, ``2 claims``."""
    return f"{amount} {noun if amount == 1 else plural or noun + 's'}"
