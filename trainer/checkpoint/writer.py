"""Checkpoints go to the disk in the background, one at a time, and none is lost quietly.

A file gets its name only once it is complete and on the disk, so a kill at any byte leaves the
checkpoint before it intact (F-CKPT-009). A write that fails stops the run: its error is raised by
the next call, whichever it is, and by leaving the block.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from trainer.checkpoint import run_directory
from trainer.checkpoint.capture import HostBuffers, Snapshot, capture
from trainer.checkpoint.digest import optimizer_state_sha
from trainer.checkpoint.epoch_metadata import EpochSummary, write_epoch_metadata
from trainer.checkpoint.position import TrainingPosition
from trainer.errors import CheckpointError, WeightsError
from trainer.trainer import PretrainTrainer
from trainer.weights.apr_metadata import config_metadata
from trainer.weights.apr_writer import write_apr
from trainer.weights.durable import sync_folder

_HEADERS_BYTES = 17 << 20
"""Room for the metadata, at most 16 MiB, and for index and padding."""


@dataclass(frozen=True)
class WrittenCheckpoint:
    """A checkpoint that is on the disk.

    Attributes:
        path: the file.
        step: optimizer steps done in it.
        size_bytes: of the file.
        seconds: from the end of the device's copies to the durable file.
    """

    path: Path
    step: int
    size_bytes: int
    seconds: float


class CheckpointWriter:
    """Writes snapshots in a thread of its own; a context manager that ends by waiting.

    Args:
        metadata: further keys of each file's metadata, such as an embedded tokenizer.
    """

    def __init__(self, metadata: Mapping[str, Any] | None = None) -> None:
        self._metadata = dict(metadata or {})
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._buffers = HostBuffers()
        self._pending: Future[None] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except CheckpointError as failure:
            if error is None:
                raise
            error.add_note(f"and a checkpoint failed: {failure}")
        finally:
            self._thread.shutdown()

    def save(
        self,
        trainer: PretrainTrainer,
        position: TrainingPosition,
        path: Path,
        *,
        epoch: EpochSummary | None = None,
        on_done: Callable[[WrittenCheckpoint], None] | None = None,
    ) -> None:
        """Wait for the write before, capture into the memory it used, and `submit`.

        Raises:
            CheckpointError: the write before failed.
        """
        self.wait()
        self.submit(capture(trainer, position, self._buffers), path, epoch=epoch, on_done=on_done)

    def submit(
        self,
        snapshot: Snapshot,
        path: Path,
        *,
        epoch: EpochSummary | None = None,
        on_done: Callable[[WrittenCheckpoint], None] | None = None,
    ) -> None:
        """Write `snapshot` to `path` in the background, once the write before is done.

        Args:
            epoch: what the epoch that ends here came to; its metadata file is written as well, and
                first, so that no epoch's checkpoint ever stands without it.
            on_done: called in the writer's thread once the file is on the disk.

        Raises:
            CheckpointError: the write before failed.
        """
        self.wait()
        described = config_metadata(snapshot.config) | self._metadata
        self._pending = self._thread.submit(_write, snapshot, described, path, epoch, on_done)

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            CheckpointError: the write failed; the checkpoint before it is untouched.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def poll(self) -> None:
        """Raise what `wait` would raise if the write is over; never waits."""
        if self._pending is not None and self._pending.done():
            self.wait()


def _write(
    snapshot: Snapshot,
    described: Mapping[str, Any],
    path: Path,
    epoch: EpochSummary | None,
    on_done: Callable[[WrittenCheckpoint], None] | None,
) -> None:
    snapshot.wait()
    started = time.perf_counter()
    _require_no_skipped_step(snapshot, path)
    needed = sum(tensor.nbytes for tensor in snapshot.tensors.values()) + _HEADERS_BYTES
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent.parent)
        _require_space(path, needed)
        _write_files(snapshot, described, path, epoch)
        size = path.stat().st_size
        run_directory.remove_superseded(path, snapshot.position.step)
    except WeightsError as error:
        raise CheckpointError(f"{error}; not written, resume from the checkpoint before") from error
    except OSError as error:
        raise _cannot_write(path, needed, str(error)) from error
    if on_done is not None:
        seconds = time.perf_counter() - started
        on_done(WrittenCheckpoint(path, snapshot.position.step, size, seconds))


def _write_files(
    snapshot: Snapshot, described: Mapping[str, Any], path: Path, epoch: EpochSummary | None
) -> None:
    summary_path = run_directory.epoch_metadata_path(path)
    if epoch is not None:
        sha = optimizer_state_sha(snapshot.tensors, snapshot.position.step)
        write_epoch_metadata(summary_path, epoch, sha)
    try:
        write_apr(path, {**described, "training": snapshot.training_metadata()}, snapshot.tensors)
    except BaseException:
        if epoch is not None:
            summary_path.unlink(missing_ok=True)
        raise


def _require_no_skipped_step(snapshot: Snapshot, path: Path) -> None:
    step, counts = snapshot.position.step, snapshot.step_counts
    if not bool((counts == step).all()):
        raise CheckpointError(
            f"F-CKPT-004: {path}: not written, AdamW counts {counts.min():g} to {counts.max():g} "
            f"steps at step {step}: the device skipped one; resume from the checkpoint before"
        )


def _require_space(path: Path, needed: int) -> None:
    if shutil.disk_usage(path.parent).free < needed:
        raise _cannot_write(path, needed, "the disk is too full")


def _cannot_write(path: Path, needed: int, reason: str) -> CheckpointError:
    folder = next(parent for parent in path.parents if parent.exists())
    return CheckpointError(
        f"F-CKPT-009: {path} cannot be written: {reason}; it needs {needed:,} bytes, "
        f"{shutil.disk_usage(folder).free:,} are free. The checkpoint before it is untouched: mend "
        "the disk or its permissions and go on with --resume"
    )
