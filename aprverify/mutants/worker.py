"""A process that has everything imported but the trainer, and tries mutants in forks of itself.

    python -m aprverify.mutants.worker SUITE SUBJECT LIMIT [NAME=FILE …]

One JSON object a line in, one a line out. ``{"watch": KEY, "limit": S}`` runs a falsifier on the
trainer as it is, for its seconds and for the lines that it executes. ``{"mutant": …}`` runs
falsifiers on a changed trainer until one of them kills it. A fork imports the trainer afresh, so no
mutant leaves anything behind; it has a folder of its own for what falsifiers make once and share.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aprverify.environment import describe_environment
from aprverify.mutants.lines import new_log, read_lines, stop_watching
from aprverify.mutants.serving import begin
from aprverify.mutants.settings import Settings, read_settings
from aprverify.mutants.trial import (
    BROKEN,
    CRASHED,
    FALSIFIED,
    HELD,
    OTHER,
    TIMED_OUT,
    try_entry,
)
from aprverify.plan import Entry
from aprverify.plugin.in_process import falsifier_of
from aprverify.plugin.state import State, state_of_worker
from aprverify.talk import Answers, orders

Body = dict[str, Any]
_GRACE = 20.0
"""Seconds over its limits after which a fork is ended from outside."""


class Worker:
    """Answers one order after another."""

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._package = state.suite.root / settings.package
        self._entries: Mapping[str, Entry] = {entry.key: entry for entry in state.entries}
        for module in settings.preload:
            with suppress(ImportError):  # whatever needs it says so by itself
                importlib.import_module(module)
        for entry in state.entries:
            falsifier_of(state.suite, entry)
        early = [name for name in sys.modules if name.partition(".")[0] == settings.package]
        if early:
            raise RuntimeError(f"{early[0]} was imported before any fork; mend `preload`")
        gc.freeze()

    def obey(self, order: Mapping[str, Any]) -> Body:
        """Do it; returns the answer."""
        if "watch" in order:
            return self._watch(order["watch"], order["limit"])
        if "mutant" in order:
            return self._mutant(order)
        return {"environment": describe_environment()}

    def _watch(self, key: str, limit: float) -> Body:
        def watched(folder: Path, tell: Callable[[Body], None]) -> None:
            log = folder / "lines"
            places = new_log(log, self._package)
            begin(folder, {"log": str(log), "places": places})
            told = self._try(key, limit)
            stop_watching()
            tell({**told, "lines": read_lines(log, places, self._package)})

        told = _forked(watched, limit)
        if not told or told[-1]["ended"] != HELD:
            return {"entry": key, "held": False, "why": _why(told)}
        return {"entry": key, "held": True, **{n: told[-1][n] for n in ("seconds", "lines")}}

    def _mutant(self, order: Mapping[str, Any]) -> Body:
        """``{"mutant", "outcome", "by", "tried", "others", "served", "seconds"}``."""
        begun = time.monotonic()
        wall = order["patience"] + max((limit for _, limit in order["entries"]), default=0.0)
        told = _forked(lambda folder, tell: self._hunt(order, folder, tell), wall)
        ended = [body for body in told if "ended" in body]
        if told and "entry" in told[-1] and "ended" not in told[-1]:
            # It died, or could not be interrupted.
            hung = time.monotonic() - begun > wall
            word = TIMED_OUT if hung else CRASHED
            ended.append({**told[-1], "ended": word, "detail": "the process hung or died"})
        served = sum(body.get("served", 0) for body in told)
        return {
            "mutant": order["mutant"],
            **concluded(ended, len(order["entries"])),
            "served": served,
            "seconds": round(time.monotonic() - begun, 3),
        }

    def _hunt(self, order: Mapping[str, Any], folder: Path, tell: Callable[[Body], None]) -> None:
        served = folder / "served"
        served.touch()
        begin(folder, {**order["change"], "served": str(served)})
        begun, left = time.monotonic(), float(order["after_fall"])
        for key, limit in order["entries"]:
            if time.monotonic() - begun > order["patience"]:
                break
            tell({"entry": key})
            told = self._try(key, limit)
            tell(told)
            if told["ended"] == FALSIFIED:
                break
            left -= {CRASHED: 1, BROKEN: 1, TIMED_OUT: order["after_fall"] / 2}.get(
                told["ended"], 0
            )
            if left <= 0:
                break
        tell({"served": len(served.read_text().splitlines())})

    def _try(self, key: str, limit: float) -> Body:
        return try_entry(self._state, self._entries[key], limit, self._package)


def concluded(ended: list[Body], planned: int) -> Body:
    """What the ends of the falsifiers, in order, say of a mutant.

    A claim that fell outweighs an exception, whichever came first; what no falsifier minded has
    survived. ``unreached``: there was none to try.
    """
    outcome = "survived" if planned else "unreached"
    by: Body | None = None
    for word, name in ((FALSIFIED, "killed"), (CRASHED, "crashed"), (TIMED_OUT, "timed_out"),
                       (BROKEN, "broken")):  # fmt: skip
        if by := next((body for body in ended if body["ended"] == word), None):
            outcome = name
            break
    others = [body for body in ended if body["ended"] == OTHER]
    return {
        "outcome": outcome,
        "by": by,
        "tried": len(ended),
        "planned": planned,
        "others": [{"entry": body["entry"], "detail": body["detail"]} for body in others],
    }


def _why(told: list[Body]) -> str:
    return str(told[-1].get("detail", told[-1].get("ended"))) if told else "its process died"


def _forked(act: Callable[[Path, Callable[[Body], None]], None], limit: float) -> list[Body]:
    """What `act` tells from a fork that gets an empty folder; ended from outside if it must be."""
    folder = Path(tempfile.mkdtemp(prefix="aprverify-fork-"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(act, folder, reader, writer)
    os.close(writer)
    try:
        return [json.loads(line) for line in _lines(reader, time.monotonic() + limit + _GRACE)]
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        shutil.rmtree(folder, ignore_errors=True)


def _be_child(
    act: Callable[[Path, Callable[[Body], None]], None], folder: Path, reader: int, writer: int
) -> None:
    status = 1
    try:
        os.setsid()
        os.close(reader)
        with open(os.devnull, "r+") as nowhere:
            for descriptor in (0, 1, 2):
                os.dup2(nowhere.fileno(), descriptor)
        temporary = folder / "tmp"
        temporary.mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)

        def tell(body: Body) -> None:
            os.write(writer, (json.dumps(body) + "\n").encode())

        act(folder, tell)
        status = 0
    finally:
        os._exit(status)


def _lines(descriptor: int, deadline: float) -> list[str]:
    """Whole lines until the end, or until it is too late."""
    text = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([descriptor], [], [], left)
        if not ready:
            break
        piece = os.read(descriptor, 65536)
        if not piece:
            break
        text += piece
    return text.decode().split("\n")[:-1]


def main() -> None:
    """Obey until the input ends."""
    _, suite_name, subject, _, *assets = sys.argv
    answers = Answers()
    state = state_of_worker(suite_name, subject, assets)
    worker = Worker(state, read_settings(state.suite))
    for order in orders():
        answers.give(worker.obey(order))


if __name__ == "__main__":
    main()
