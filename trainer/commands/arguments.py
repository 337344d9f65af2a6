"""Argument types that several subcommands share: one clear sentence for a value that is no good."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

_LARGEST_RATE = 1e30


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


def learning_rate(text: str) -> float:
    """A finite number of at least 0 with which AdamW stays within float32."""
    value = non_negative(text)
    if value > _LARGEST_RATE:
        raise argparse.ArgumentTypeError(f"{text!r} is above {_LARGEST_RATE:g}")
    return value


def seed(text: str) -> int:
    """What torch takes as a seed: an integer of 64 bits without a sign."""
    value = natural(text)
    if value >= 2**64:
        raise argparse.ArgumentTypeError(f"{text!r} is not below 2**64")
    return value


def path(text: str) -> Path:
    """A path; an empty one is a shell variable that was not set, not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def text(argument: str) -> str:
    """Text, which bytes that are not UTF-8 are not."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"{argument!r} is not UTF-8") from error
    return argument


def _integer(text: str, *, least: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() else least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
    return value
