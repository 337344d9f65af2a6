"""What a clean run asks of its subject: a defect that passes all of it on need not be planted.

A protocol defect stands between a falsifier and a subject. Where it hands out, for everything that
a falsifier asks for, the very object that it was given, that falsifier goes the way it goes without
it. This is tried and not concluded from names: the defect is planted around a stand-in that knows
each of its own answers, and asked what the clean run asked, in that order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aprverify.planting import Defect, Plant

_PARTS = ("build", "build_pretrain", "operators")
"""Methods of a subject whose results are asked in turn; every wrapper has some of its own."""


@dataclass
class Call:
    """A call of one of `_PARTS`, and the names that were asked of what it returned."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    names: set[str] = field(default_factory=set)


@dataclass
class Asked:
    """The names that were asked of a subject, and the calls that made parts of it, in order."""

    names: set[str] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)


class AskedSubject:
    """A subject that passes everything on, and notes it."""

    def __init__(self, inner: Any, asked: Asked) -> None:
        self._inner, self._asked = inner, asked

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in _PARTS:
            self._asked.names.add(name)
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            # As they are now: whoever gave them may change them later.
            noted = Call(name, copy.deepcopy(arguments), copy.deepcopy(options))
            self._asked.calls.append(noted)
            return _AskedPart(found(*arguments, **options), noted.names)

        return call


class _AskedPart:
    def __init__(self, inner: Any, names: set[str]) -> None:
        self._inner, self._names = inner, names

    def __getattr__(self, name: str) -> Any:
        self._names.add(name)
        return getattr(self._inner, name)


class _StandIn:
    """Has an answer of its own for every name, always the same, and notes calls of `_PARTS`."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[Call, _StandIn]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.answers.setdefault(name, self._maker(name) if name in _PARTS else object())

    def _maker(self, name: str) -> Callable[..., Any]:
        def make(*arguments: Any, **options: Any) -> Any:
            self.calls.append((Call(name, arguments, options), _StandIn()))
            return self.calls[-1][1]

        return make


def passes_on(defect: Defect, asked: Asked) -> bool:
    """Whether the protocol defect hands out the very objects for all that was asked."""
    stand_in = _StandIn()
    plant = Plant(defect, stand_in)
    try:
        defect.plant(plant)
        return not plant.patched and _same_throughout(plant.subject, stand_in, asked)
    except Exception:  # it does something with what it is given, if only here
        return False
    finally:
        plant.leave()


def _same_throughout(subject: Any, stand_in: _StandIn, asked: Asked) -> bool:
    same = all(getattr(subject, name) is getattr(stand_in, name) for name in asked.names)
    for number, call in enumerate(asked.calls, 1):
        if not same:
            return False
        given = copy.deepcopy((call.arguments, call.options))
        part = getattr(subject, call.method)(*given[0], **given[1])
        if len(stand_in.calls) != number:
            return False
        found, inner = stand_in.calls[-1]
        same = (found.method, found.arguments, found.options) == (
            (call.method, call.arguments, call.options)
        ) and all(getattr(part, name) is getattr(inner, name) for name in call.names)
    return same
