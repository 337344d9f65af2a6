"""Which functions a clean run calls, so that a defect in none of them need not be planted.

A source defect replaces functions. Up to the first call of one of them, a falsifier does under the
defect just what it does without. So where its clean run, watched once, calls none of them, the
defect cannot come into force. Only plain Python functions can be watched: a defect that replaces
anything else, or wraps the subject, is always planted.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import CodeType, FrameType
from typing import Any

from aprverify.planting import Defect, Plant, PlantingError, launch_command

Place = tuple[str, int, str]
"""Where a function's code stands: file, first line, name."""


@dataclass
class Watched:
    """What was seen. A defect travels into a process of its own, where nobody watches."""

    in_process: bool = False


_processes = [0]
_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"})


@cache
def _hear_of_processes() -> None:
    def hear(event: str, _: object) -> None:
        if event in _STARTS:
            _processes[0] += 1

    sys.addaudithook(hear)


@contextmanager
def watched(places: set[Place]) -> Iterator[Watched]:
    """Add every Python function that is called inside, in this thread or one started inside."""
    seen = Watched()
    codes: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            codes.add(frame.f_code)

    _hear_of_processes()
    before = _processes[0]
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        places.update(_place(code) for code in codes)
        # Who asks for a command may find that its work was done before, and start nothing.
        asked = launch_command.__code__ in codes
        seen.in_process = not asked and _processes[0] == before


def replaced(defect: Defect) -> frozenset[Place] | None:
    """The functions that a defect replaces; None where it does not only replace functions."""
    plant = _DryPlant(defect)
    try:
        defect.plant(plant)
    except Exception:
        return None  # planting it for good will say why
    finally:
        plant.leave()
    return frozenset(plant.places) if plant.places and plant.only_functions else None


class _DryPlant(Plant):
    """Notes what would be replaced, and replaces it for as long as the defect is being entered.

    For as long, because a defect may patch one function twice, or look at what it has patched.
    """

    def __init__(self, defect: Defect) -> None:
        super().__init__(defect)
        self.places: set[Place] = set()
        self.only_functions = True

    def patch(self, target: str, make: Callable[[Any], Any]) -> None:
        def noting(original: Any) -> Any:
            function = getattr(original, "__func__", original)
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType):
                self.places.add(_place(code))
            else:
                self.only_functions = False
            return make(original)

        super().patch(target, noting)

    def wrap_subject(self, wrap: Callable[[Any], Any]) -> None:
        self.only_functions = False
        raise PlantingError("a subject is not at hand")


def _place(code: CodeType) -> Place:
    return code.co_filename, code.co_firstlineno, code.co_name
