"""Argument types that several subcommands share: one clear sentence for a value that is no good."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> int:
    """An integer of at least 1."""
    return _integer(text, least=1)


def natural(text: str) -> int:
    """An integer of at least 0."""
    return _integer(text, least=0)


def non_negative(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number of at least 0")
    return value


def _integer(text: str, *, least: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() else least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
    return value
