"""Writes run.jsonl line by line, so that a run that dies leaves what it had, and no footer.

Each line carries the SHA-256 of the one before it: a line that was changed, dropped or moved
afterwards breaks the chain. The file is unsigned; the chain finds accidents, not forgers.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from aprverify.evidence.saving import naming
from aprverify.evidence.values import canonical_json, encode, environment_id

RUN_SCHEMA = "aprverify-run/1"


def utc_now() -> str:
    """The present time as evidence writes it: ISO 8601, microseconds, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class RunWriter:
    """Appends the lines of one run to `path`, which must not exist yet.

    Bodies are the schema's objects without `type`, `seq` and `prev`, non-finite floats as floats.

    Raises:
        FileExistsError: `path` exists; a run is never overwritten.
        OSError: a line could not be written; it names `path`.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("xb")
        self._previous = ""
        self._lines = 0
        self._planned = 0
        self._started = ""
        self._keys: set[str] = set()
        self._environments: set[str] = set()
        self._outcomes: Counter[str] = Counter()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with naming(self._path):
            self._file.close()

    def header(self, body: Mapping[str, Any]) -> None:
        """The first line. Its `planned` is what the footer repeats."""
        self._planned = body["planned"]
        self._started = body["started"]
        self._line("header", {"schema": RUN_SCHEMA, **body})

    def contract(self, body: Mapping[str, Any]) -> None:
        """A contract that rows refer to."""
        self._line("contract", body)

    def environment(self, body: Mapping[str, Any]) -> str:
        """Where rows ran. Returns the id; an environment already written is not repeated."""
        name = environment_id(body)
        if name not in self._environments:
            self._environments.add(name)
            self._line("environment", {"id": name, **body})
        return name

    def row(self, body: Mapping[str, Any]) -> None:
        """What one entry left behind.

        Raises:
            ValueError: an entry with this key has a row already.
        """
        key = body["key"]
        if key in self._keys:
            raise ValueError(
                f"a second row for {key}: an entry leaves one row, so merge them first"
            )
        self._keys.add(key)
        self._outcomes[body["outcome"]] += 1
        self._line("row", body)

    def matrix(self, body: Mapping[str, Any], crosses: Iterable[Mapping[str, Any]]) -> None:
        """What was tried off the diagonal, after every row; see `aprverify.evidence.crosses`."""
        self._line("matrix", body)
        for cross in crosses:
            self._line("cross", cross)

    def footer(self, interrupted: bool, finished: str | None = None) -> None:
        """The last line, counted here; then the file is on the disk and closed.

        `finished`: when the rows came to an end, in a run made of others; None: now.
        """
        body = {
            "finished": (finished := finished or utc_now()),
            "seconds": _seconds_between(self._started, finished),
            "planned": self._planned,
            "rows": len(self._keys),
            "outcomes": dict(sorted(self._outcomes.items())),
            "interrupted": interrupted,
        }
        self._line("footer", body)
        with naming(self._path):
            os.fsync(self._file.fileno())
            self._file.close()

    def _line(self, kind: str, body: Mapping[str, Any]) -> None:
        record = {"type": kind, "seq": self._lines, "prev": self._previous, **encode(dict(body))}
        data = canonical_json(record).encode()
        with naming(self._path):
            self._file.write(data + b"\n")
            self._file.flush()
        self._previous = hashlib.sha256(data).hexdigest()
        self._lines += 1


def _seconds_between(started: str, finished: str) -> float:
    span = datetime.fromisoformat(finished) - datetime.fromisoformat(started)
    return round(span.total_seconds(), 6)
