"""Worker processes that share the lots between them, and what becomes of one that dies.

A defect may crash a process, or stop it for ever. Then the falsifier it was under is broken, the
process is replaced, and the rest of its lot goes on.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aprverify.matrix.selection import Lot
from aprverify.plugin.lanes import device_of_worker, share_of_cores

PATIENCE = 60.0
"""Seconds without a word after which a process that should have given up by itself is ended."""
Body = dict[str, Any]
T = TypeVar("T")


class WorkerDied(Exception):
    """It crashed, or said nothing for too long."""


class Closed(Exception):
    """The pool was closed while there was work left."""


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


class Talk:
    """One worker, started when first needed and again when it has died."""

    def __init__(self, command: Command, number: int) -> None:
        self._command, self._number = command, number
        self._process: subprocess.Popen[str] | None = None
        self._closed = False
        self._lines: queue.Queue[str] = queue.Queue()

    def tell(self, order: Mapping[str, Any]) -> None:
        """Give an order."""
        if self._closed:
            raise Closed
        if self._process is None:
            self._process = self._command.start(self._number)
            self._lines = queue.Queue()
            reader = threading.Thread(target=_drain, args=(self._process, self._lines), daemon=True)
            reader.start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerDied("the worker process died") from None

    def answer(self) -> Body:
        """The next answer.

        Raises:
            WorkerDied: there will be none.
            Closed: there will be none, because the pool was closed.
        """
        try:
            line = self._lines.get(timeout=self._command.limit + PATIENCE)
        except queue.Empty:
            self.end()
            raise WorkerDied("the worker process hung and was ended") from None
        if not line:
            if self._closed:
                raise Closed
            self.end()
            raise WorkerDied("the worker process died: crash or out of memory")
        body: Body = json.loads(line)
        return body

    def close(self) -> None:
        """End the process, and start no other."""
        self._closed = True
        self.end()

    def end(self) -> None:
        """End the process; the next order starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _drain(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


class Pool:
    """Shares work among workers until there is none left, or no time."""

    def __init__(self, command: Command) -> None:
        self._talks = [Talk(command, number) for number in range(command.workers)]
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

        take = taking(deque(lots))
        self.share(lambda: None if _is_past(deadline) else take(), one)

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


def taking(waiting: deque[T]) -> Callable[[], T | None]:
    """What `Pool.share` asks for its next item: each of those that are waiting, once."""

    def take() -> T | None:
        try:
            return waiting.popleft()
        except IndexError:
            return None

    return take


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


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
