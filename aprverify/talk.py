"""A worker process that is told orders and answers them, a JSON object a line.

It may crash, or stop for ever, whatever it runs: it is then ended, and the next order starts
another.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

Body = dict[str, Any]


class WorkerDied(Exception):
    """It crashed, or said nothing for too long."""


class WorkerHung(WorkerDied):
    """It said nothing for too long, and was ended."""


class Closed(Exception):
    """The talk was closed while there were orders left."""


class Talk:
    """One worker, started when first needed and again when it has died.

    Args:
        start: starts it, with pipes for both streams.
        patience: seconds without an answer after which it is ended.
    """

    def __init__(self, start: Callable[[], subprocess.Popen[str]], patience: float) -> None:
        self._start, self._patience = start, patience
        self._process: subprocess.Popen[str] | None = None
        self._closed = False
        self._lines: queue.Queue[str] = queue.Queue()

    def tell(self, order: Mapping[str, Any]) -> None:
        """Give an order."""
        if self._closed:
            raise Closed
        if self._process is None:
            self._process = self._start()
            self._lines = queue.Queue()
            reader = threading.Thread(target=_drain, args=(self._process, self._lines), daemon=True)
            reader.start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.end()
            raise WorkerDied("the worker process died") from None

    def answer(self, patience: float | None = None) -> Body:
        """The next answer. `patience`: another than usual.

        Raises:
            WorkerDied: there will be none.
            Closed: there will be none, because the talk was closed.
            KeyboardInterrupt: and the process is ended, since its answer would come too late.
        """
        try:
            line = self._lines.get(timeout=self._patience if patience is None else patience)
        except KeyboardInterrupt:
            self.end()
            raise
        except queue.Empty:
            self.end()
            raise WorkerHung("the worker process hung and was ended") from None
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
        """End the process, and its group where it leads one; the next order starts another."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                if os.getpgid(self._process.pid) == self._process.pid:
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            self._process = None


def _drain(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


class Answers:
    """The worker's own side: its standard output is for answers alone from now on.

    Whatever else the process prints, falsifiers and trainers do, goes to its standard error.
    """

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def give(self, body: Mapping[str, Any]) -> None:
        """Answer."""
        self._stream.write(json.dumps(body) + "\n")
        self._stream.flush()


def orders() -> Iterator[Body]:
    """What the worker is told, until its input ends."""
    for line in sys.stdin:
        yield json.loads(line)
