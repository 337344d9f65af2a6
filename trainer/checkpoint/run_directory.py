"""What lies where in a run directory, and which of its checkpoints to go on from.

```
train.jsonl  run.json  outcome.json  curves.svg
ckpt/epoch-NNN.apr                 one an epoch, kept
ckpt/epoch-NNN.metadata.json       what that epoch came to
ckpt/step-NNNNNNNN.apr             within an epoch; removed once a later checkpoint stands
```
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.checkpoint.checkpoint_file import CheckpointFile
from trainer.errors import CheckpointError, NewerCheckpoint
from trainer.weights.durable import partial_path

_EPOCH = re.compile(r"epoch-(\d{3,})\.apr")
_STEP = re.compile(r"step-(\d{8,})\.apr")


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside `root`; nothing is created here."""

    root: Path

    @property
    def log(self) -> Path:
        """One JSON object an optimizer step."""
        return self.root / "train.jsonl"

    @property
    def settings(self) -> Path:
        """How the run was started."""
        return self.root / "run.json"

    @property
    def outcome(self) -> Path:
        """How the run ended."""
        return self.root / "outcome.json"

    @property
    def curves(self) -> Path:
        """Losses, learning rate, gradient norm and speed as a picture."""
        return self.root / "curves.svg"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.root / "ckpt"

    def epoch_checkpoint(self, epoch: int) -> Path:
        """The checkpoint at the end of `epoch`, counted from 0."""
        return self.checkpoints / f"epoch-{epoch:03d}.apr"

    def step_checkpoint(self, step: int) -> Path:
        """The checkpoint after `step` optimizer steps, within an epoch."""
        return self.checkpoints / f"step-{step:08d}.apr"

    def is_before_first_checkpoint(self) -> bool:
        """Whether no checkpoint was ever finished here, so that nothing is lost by step 0.

        An epoch's metadata is written before its checkpoint, so those of epoch 0 may stand alone.
        """
        first = epoch_metadata_path(self.epoch_checkpoint(0))
        metadata = set(self.checkpoints.glob(epoch_metadata_path(Path("epoch-*")).name))
        return metadata <= {first} and not any(self.checkpoints.glob("*.apr"))


def epoch_metadata_path(checkpoint: Path) -> Path:
    """Where the nine fields that belong to an epoch's checkpoint are."""
    return checkpoint.with_suffix(".metadata.json")


def latest(root: Path, notice: Callable[[str], None]) -> Path:
    """The checkpoint of the run directory `root` with the most steps, verified completely.

    Args:
        notice: told about each damaged checkpoint that was passed over.

    Raises:
        CheckpointError: there is no good checkpoint; or a newer version of the trainer wrote one
            (F-CKPT-002), and going on from an older file would quietly lose its steps.
    """
    folder = RunDirectory(root).checkpoints
    found = [
        good
        for pattern in (_STEP, _EPOCH)
        if (good := _newest_good(_numbered(folder, pattern), notice)) is not None
    ]
    if not found:
        raise CheckpointError(
            f"{folder}: no good checkpoint to resume from; start a new run in another --run-dir"
        )
    # Of two with equal steps the later one in the list, an epoch's, is further: it was validated.
    return max(reversed(found), key=lambda good: good[0])[1]


def remove_superseded(checkpoint: Path, step: int) -> None:
    """Remove what the finished `checkpoint` after `step` steps makes useless in its folder.

    That is checkpoints within an epoch of at most as many steps, and partial files of writes that
    were killed. Raises OSError.
    """
    for older, path in _numbered(checkpoint.parent, _STEP):
        if older <= step and path != checkpoint:
            path.unlink()
    for pattern in ("epoch-*.apr", "epoch-*.metadata.json", "step-*.apr"):
        for partial in checkpoint.parent.glob(partial_path(Path(pattern)).name):
            partial.unlink()


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
    matches = ((pattern.fullmatch(path.name), path) for path in folder.glob("*.apr"))
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _newest_good(
    numbered: list[tuple[int, Path]], notice: Callable[[str], None]
) -> tuple[int, Path] | None:
    for _, path in numbered:
        try:
            with CheckpointFile(path) as file:
                return file.position.step, path
        except NewerCheckpoint:
            raise
        except CheckpointError as error:
            notice(f"passing over a damaged checkpoint: {error}")
    return None
