"""A checkpoint back into a trainer: all of it, after every check, or nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from trainer.checkpoint import state
from trainer.checkpoint.checkpoint_file import CheckpointFile
from trainer.checkpoint.position import RunSettings, TrainingPosition, differences
from trainer.checkpoint.random_state import restore_random_state
from trainer.errors import CheckpointError
from trainer.parallel.parts import assign
from trainer.trainer import PretrainTrainer


def restore(trainer: PretrainTrainer, path: Path, settings: RunSettings) -> TrainingPosition:
    """Put weights, AdamW state, step and random state of the file at `path` into `trainer`.

    Tensors are overwritten in place, so compiled code and CUDA graphs over them stay valid.

    Args:
        settings: those of the run that is to go on; they must be the checkpoint's, but for the same
            micro-batches of a step going to another number of ranks.

    Returns:
        Where the run stood: the next step is number `step`, its data starts at `data_batch_idx`.

    Raises:
        CheckpointError: the file is not a good checkpoint, is of another architecture (F-CKPT-008),
            dataset (F-CKPT-006) or settings, or holds NaN or Inf (F-CKPT-013). `trainer` is then
            unchanged.
    """
    with CheckpointFile(path) as file:
        _require_same_run(file, trainer, settings)
        stored = file.tensors()
        restore_random_state(file.random_state, trainer.device, str(path))
        for name, tensor in state.training_tensors(trainer).items():
            assign(tensor, stored[name])
        _set_step(trainer, file.position.step)
        return file.position


def _require_same_run(
    file: CheckpointFile, trainer: PretrainTrainer, settings: RunSettings
) -> None:
    model = differences(file.config, trainer.config)
    if model:
        raise CheckpointError(
            f"F-CKPT-008: {file.path}: another architecture than the model's; {'; '.join(model)}"
        )
    stored = file.position.settings
    run = differences(stored, _dealt_out_like(stored, settings))
    if run:
        data = "F-CKPT-006: " if any(line.startswith("dataset_sha256") for line in run) else ""
        raise CheckpointError(
            f"{data}{file.path}: the run to go on with has other settings; {'; '.join(run)}; "
            "resume with those of the checkpoint, or start a new run"
        )


def _dealt_out_like(stored: RunSettings, asked: RunSettings) -> RunSettings:
    """A step's micro-batches may go to another number of ranks, as long as they stay the same."""
    if stored.accumulation * stored.world_size != asked.accumulation * asked.world_size:
        return asked
    return replace(asked, accumulation=stored.accumulation, world_size=stored.world_size)


def _set_step(trainer: PretrainTrainer, step: int) -> None:
    trainer.step = step
    with torch.no_grad():
        for parameter in trainer.parameters.values():
            trainer.optimizer.state[parameter]["step"].fill_(step)
