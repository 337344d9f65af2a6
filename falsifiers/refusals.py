"""Trying what must be refused, and recording how it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from falsifiers.subject import SubjectRefused


@dataclass(frozen=True)
class Refusal:
    """Whether something was refused, under which name, and with what message."""

    refused: bool
    kind: str
    message: str


def attempt(action: Callable[[], Any]) -> Refusal:
    """Run `action`; a `SubjectRefused` is a refusal, any other error goes on its way."""
    try:
        action()
    except SubjectRefused as refusal:
        return Refusal(True, refusal.kind, str(refusal))
    return Refusal(False, "", "")
