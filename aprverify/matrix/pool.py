"""Worker processes that share the lots between them, and what becomes of one that dies.

A defect may crash a process, or stop it for ever. Then the falsifier it was under is broken, the
process is replaced, and the rest of its lot goes on.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from aprverify.matrix.selection import Lot
from aprverify.plugin.lanes import device_of_worker, share_of_cores
from aprverify.talk import Body, Talk, WorkerDied

PATIENCE = 60.0
"""Seconds without a word after which a process that should have given up by itself is ended."""
T = TypeVar("T")


@dataclass(frozen=True)
class Command:
    """How workers are started. `limit`: seconds for one falsifier; `module`: what they run."""

    suite: str
    subject: str
    device: str
    workers: int
    limit: float
    assets: Sequence[str] = ()
    module: str = "aprverify.matrix.worker"
    session: str = field(default_factory=lambda: secrets.token_hex(8))

    def start(self, number: int) -> subprocess.Popen[str]:
        """Start a worker, with its share of the cores and its GPU."""
        argv = [sys.executable, "-m", self.module, self.suite, self.subject]
        env = {"OMP_NUM_THREADS": share_of_cores(self.workers), **os.environ}
        env["PYTEST_XDIST_TESTRUNUID"] = self.session  # what falsifiers make once, they share
        env |= device_of_worker(number, with_gpu=self.device != "cpu")
        return subprocess.Popen(
            [*argv, str(self.limit), *self.assets],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=env,
        )


class Pool:
    """Shares work among workers until there is none left, or no time."""

    def __init__(self, command: Command) -> None:
        patience = command.limit + PATIENCE
        self._talks = [Talk(partial(command.start, n), patience) for n in range(command.workers)]
        self._lock = threading.Lock()

    def close(self) -> None:
        """End all workers."""
        for talk in self._talks:
            talk.close()

    def environment(self) -> Body:
        """What a worker says of the machine it runs on."""
        self._talks[0].tell({"environment": None})
        found: Body = self._talks[0].answer()["environment"]
        return found

    def watch(self, keys: Sequence[str]) -> dict[str, Body]:
        """What the clean run of each entry calls; without those that could not be watched."""
        found: dict[str, Body] = {}

        def one(talk: Talk, key: str) -> None:
            try:
                talk.tell({"watch": key})
                found[key] = talk.answer()
            except WorkerDied:
                return

        self.share(taking(deque(keys)), one)
        return found

    def cross(
        self,
        lots: Sequence[Lot],
        deadline: float | None,
        report: Callable[[Lot, list[Body], str], None],
    ) -> None:
        """Try every lot. `report` is told of each: its crosses, and what the canary said."""

        def one(talk: Talk, lot: Lot) -> None:
            told, canary = _try(talk, lot)
            with self._lock:
                report(lot, told, canary)

        self.share(taking(deque(lots), deadline), one)

    def share(self, take: Callable[[], T | None], one: Callable[[Talk, T], None]) -> None:
        """Let each worker do `one` of what `take` gives it, until that gives None.

        `take` is called by several threads. What the first worker raises is raised here.
        """
        errors: list[BaseException] = []

        def work(talk: Talk) -> None:
            try:
                while not errors and (item := take()) is not None:
                    one(talk, item)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(talk,), daemon=True) for talk in self._talks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]


def taking(waiting: deque[T], deadline: float | None = None) -> Callable[[], T | None]:
    """What `Pool.share` asks for work: one thing after another, and None past the deadline.

    Args:
        waiting: what is to be done, without None in it.
        deadline: in seconds of the monotonic clock.
    """

    def take() -> T | None:
        if deadline is not None and time.monotonic() >= deadline:
            return None
        try:
            return waiting.popleft()
        except IndexError:
            return None

    return take


def _try(talk: Talk, lot: Lot) -> tuple[list[Body], str]:
    """The crosses of a lot and its canary. Where a process died there was no canary to measure."""
    told: list[Body] = []
    canary = "same"
    while len(told) < len(lot.keys):
        rest = lot.keys[len(told) :]
        try:
            talk.tell({"defect": lot.defect, "keys": rest})
            for _ in rest:
                told.append(talk.answer())
            if talk.answer()["canary"] != "same":
                talk.end()  # whatever was left behind ends with it
                return [_spoilt(body) for body in told], "different"
        except WorkerDied as death:
            canary = "not_measured"
            if len(told) < len(lot.keys):
                key = lot.keys[len(told)]
                told.append(
                    {"column": key, "outcome": "broken", "seconds": 0.0, "detail": str(death)}
                )
    return told, canary


def _spoilt(body: Body) -> Body:
    detail = "the defect left something behind: the canary measures differently"
    kept = {name: body[name] for name in ("column", "seconds")}
    return {**kept, "outcome": "broken", "detail": detail}
