"""Run directories edited before they are read, for protocol defects.

Everything but checkpoints is copied; a checkpoint is linked, so that a defect in a large run costs
no disk, and a defect that spoils its bytes replaces the link by a file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aprverify.planting import Plant
from falsifiers.wrapping import SubjectWrapper

Edit = Callable[[Path], None]
Line = dict[str, Any]


def edit_runs(plant: Plant, edit: Edit) -> None:
    """Let `edit(copy)` change a copy of each run directory that the subject hands out."""

    class Edited(SubjectWrapper):
        def run_directory(self, path: Path) -> Path:
            """The edited copy; it goes with this wrapper."""
            holder = tempfile.TemporaryDirectory(prefix="edited-run-", ignore_cleanup_errors=True)
            self.__dict__.setdefault("copies", []).append(holder)
            copy = _copy(self.inner.run_directory(path), Path(holder.name) / "run")
            before = _content(copy)
            edit(copy)
            self.plant.effect(_content(copy) != before)
            return copy

    plant.wrap_subject(lambda subject: Edited(subject, plant))


def edit_log(change: Callable[[list[Line]], list[Line]]) -> Edit:
    """An edit of the lines of ``train.jsonl``."""

    def edit(run: Path) -> None:
        log = run / "train.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        log.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))

    return edit


def edit_lines(change: Callable[[Line], Mapping[str, Any]]) -> Edit:
    """An edit that replaces fields of each line of the log."""
    return edit_log(lambda lines: [{**line, **change(line)} for line in lines])


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change the object in a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_epochs(change: Callable[[Any], None]) -> Edit:
    """An edit of the metadata of every epoch."""

    def edit(run: Path) -> None:
        for path in metadata_files(run):
            edit_json(path, change)

    return edit


def metadata_files(run: Path) -> list[Path]:
    """The metadata file of each epoch, in order."""
    return sorted((run / "ckpt").glob("epoch-*.metadata.json"))


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint of each epoch, in order."""
    return sorted((run / "ckpt").glob("epoch-*.apr"))


def replace_bytes(checkpoint: Path, change: Callable[[bytearray], None]) -> None:
    """Put a changed file in the place of a linked checkpoint."""
    content = bytearray(checkpoint.read_bytes())
    change(content)
    checkpoint.unlink()
    checkpoint.write_bytes(content)


def _copy(run: Path, copy: Path) -> Path:
    (copy / "ckpt").mkdir(parents=True)
    for source in _files(run):
        target = copy / source.relative_to(run)
        if source.suffix == ".apr":
            target.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, target)
    return copy


def _files(run: Path) -> Iterator[Path]:
    yield from (path for path in sorted(run.iterdir()) if path.is_file())
    yield from (path for path in sorted((run / "ckpt").glob("*")) if path.is_file())


def _content(run: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(run)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in _files(run)
    }
