"""Items made ahead of their use in a thread, so that a slow disk does not hold up a step."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Empty, Queue
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _End:
    """Last entry of the queue: why there are no more items."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Prefetch(Generic[Item]):
    """Iterates over `items`, of which up to `depth` are waiting. A context manager.

    What `items` raises is raised here, in its place. On exit the thread has ended.
    """

    def __init__(self, items: Iterable[Item], depth: int = 2) -> None:
        self._items = items
        self._queue: Queue[Item | _End] = Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetch[Item]:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        while self._thread.is_alive():
            # The thread may be waiting for room.
            with suppress(Empty):
                self._queue.get(timeout=0.01)
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        while True:
            entry = self._queue.get()
            if not isinstance(entry, _End):
                yield entry
            elif entry.error is None:
                return
            else:
                raise entry.error

    def _fill(self) -> None:
        end = _End(None)
        try:
            for item in self._items:
                self._queue.put(item)
                if self._stop.is_set():
                    return
        except BaseException as error:
            end = _End(error)
        self._queue.put(end)
