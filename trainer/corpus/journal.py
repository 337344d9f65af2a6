"""What a preparation that was killed had finished, so that the same command can go on."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from trainer.corpus.manifest import Shard
from trainer.corpus.shards import WrittenShard, require_intact
from trainer.errors import DataError

JOURNAL_NAME = "prepare.journal"


class Journal:
    """Finished shards of an unfinished dataset, one JSON line each after a line with the plan.

    A line is written after its shard is on the disk, so every line tells of a complete shard. The
    file is locked as long as it is open.

    Raises:
        DataError: another process is at work here, or the journal belongs to another plan.
    """

    def __init__(self, folder: Path, plan_sha256: str, vocab_size: int) -> None:
        self.path = folder / JOURNAL_NAME
        self._file = self.path.open("a+b")
        try:
            self._lock()
            self.finished = self._resume(folder, plan_sha256, vocab_size)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, written: WrittenShard) -> None:
        """Record a shard that is on the disk. Raises OSError."""
        self.finished.append(written)
        self._write(asdict(written))

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"{self.path}: another aprtrain prepare is writing this dataset; wait for it"
            ) from error

    def _resume(self, folder: Path, plan_sha256: str, vocab_size: int) -> list[WrittenShard]:
        self._file.seek(0)
        lines = [line for line in self._file.readlines() if line.endswith(b"\n")]
        if not lines:
            self._file.truncate(0)
            self._write({"plan_sha256": plan_sha256})
            return []
        if _field(lines[0], "plan_sha256") != plan_sha256:
            raise DataError(
                f"{folder}: holds an unfinished dataset of other sources or options; run the "
                "command that began it, delete the folder, or choose another --out"
            )
        finished: list[WrittenShard] = []
        for line in lines[1:]:
            try:
                written = _parse(line)
                require_intact(folder / written.shard.file, written.shard, vocab_size)
            except (DataError, ValueError, KeyError, TypeError):
                # This shard and those after it are written again.
                break
            finished.append(written)
        self._file.truncate(sum(map(len, lines[: 1 + len(finished)])))
        return finished

    def _write(self, fields: dict[str, object]) -> None:
        self._file.write(json.dumps(fields).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _field(line: bytes, name: str) -> object:
    try:
        return json.loads(line)[name]
    except (ValueError, KeyError, TypeError):
        return None


def _parse(line: bytes) -> WrittenShard:
    fields = json.loads(line)
    return WrittenShard(Shard(**fields["shard"]), fields["document"], fields["next_token"])
