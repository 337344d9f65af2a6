"""Processes that read and encode documents, with results in the order of the tasks.

Encoding holds the interpreter lock for long stretches, so threads alone do not help. Here each
thread owns a process and a pipe to it. Nothing is shared between processes, so any of them may be
killed at any moment; with `ProcessPoolExecutor` that can hang for ever (a feeder blocked on a full
pipe, a lock held by a dead worker). Tasks are handed out a few at a time: memory stays bounded
however large the corpus is.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from trainer.corpus.documents import DocumentReader
from trainer.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

IN_FLIGHT_PER_WORKER = 4
"""Tasks handed out and not yet taken back: enough that a slow one leaves no worker idle."""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """`count` processes with a `DocumentReader` each; one worker is the calling process itself."""

    def __init__(self, count: int, tokenizer: Path, max_file_bytes: int) -> None:
        self.reader = DocumentReader(tokenizer, max_file_bytes)
        self._settings = tokenizer, max_file_bytes
        self._limit = count * IN_FLIGHT_PER_WORKER
        self._mine = threading.local()
        self._workers: list[_Worker] = []
        self._threads: ThreadPoolExecutor | None = None
        if count > 1:
            self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker")

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._threads is None:
            return
        # A document may take seconds; nobody waits for results that are thrown away.
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._workers):
            worker.kill()
        self._threads.shutdown()
        for worker in self._workers:  # one may have been starting
            worker.kill()

    def map(
        self, method: Callable[[DocumentReader, Task], Result], tasks: Iterable[Task]
    ) -> Iterator[Result]:
        """`method` of a reader for each task, in their order.

        Raises:
            DataError: a worker died. Also whatever `method` raises.
        """
        if self._threads is None:
            for task in tasks:
                yield method(self.reader, task)
            return
        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            waiting.append(self._threads.submit(self._call, method, task))
            if len(waiting) == self._limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _call(self, method: Callable[[DocumentReader, Task], Result], task: Task) -> Result:
        if not hasattr(self._mine, "worker"):
            self._mine.worker = _Worker(*self._settings)
            self._workers.append(self._mine.worker)
        worker: _Worker = self._mine.worker
        result: Result = worker.call(method, task)
        return result


class _Worker:
    def __init__(self, tokenizer: Path, max_file_bytes: int) -> None:
        # Not fork: this process has threads, and a fork does not take them along.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, tokenizer, max_file_bytes), daemon=True
        )
        self._process.start()
        theirs.close()

    def call(self, method: Callable[[DocumentReader, Any], Any], task: object) -> Any:
        try:
            self._connection.send((method, task))
            succeeded, result = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise DataError(
                "a worker process was ended from outside, most often for want of memory; lower "
                "--workers or --max-file-bytes and run the command again"
            ) from error
        if not succeeded:
            raise result
        return result

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, tokenizer: Path, max_file_bytes: int) -> None:
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reader = DocumentReader(tokenizer, max_file_bytes)
    while True:
        try:
            method, task = connection.recv()
        except EOFError:  # the parent is gone
            return
        try:
            answer = True, method(reader, task)
        except Exception as error:
            answer = False, error
        try:
            connection.send(answer)
        except ConnectionError:
            return
