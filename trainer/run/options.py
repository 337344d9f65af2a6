"""What a training run is asked to do, as the command line gives it. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SYNTHETIC_HELDOUT_BATCHES = 4


@dataclass(frozen=True)
class PretrainOptions:
    """Options of ``aprtrain pretrain``; None is "not given".

    Attributes:
        mode: ``finetune`` or ``from-scratch``.
        init: initial weights.
        device: a ``--device`` value.
        dataset: folder that ``aprtrain prepare`` made.
        tokenizer: the tokenizer the dataset was prepared with.
        run_dir: where everything the run leaves behind goes.
        num_steps: optimizer steps.
        batch_size: sequences a micro-batch.
        seq_length: target positions a sequence.
        accumulation: micro-batches an optimizer step.
        seed: of the initial weights and the data order.
        lr, warmup, target_loss: instead of the mode's own.
        deterministic: only algorithms that give the same bits every time.
        resume: go on from the newest checkpoint in `run_dir`.
        synthetic: random tokens instead of a dataset.
        dtype: of activations.
        steps_per_epoch: optimizer steps between two validations.
        checkpoint_every: optimizer steps between two checkpoints within an epoch.
        data_end: ``cycle`` through the data again, or ``halt`` the run.
        val_tokens: how many held-out tokens a validation scores.
        min_tokens_per_sec: slower than this ends the run.
        compile: ``on``, ``off``, or ``auto``, which compiles on CUDA.
        embed_tokenizer: store the tokenizer in every checkpoint.
        parallel: how several processes share the work, ``ddp`` or ``fsdp``.
    """

    run_dir: Path
    num_steps: int
    mode: str | None = None
    init: Path | None = None
    device: str = "auto"
    dataset: Path | None = None
    tokenizer: Path | None = None
    batch_size: int = 8
    seq_length: int = 1024
    accumulation: int = 1
    seed: int = 0
    lr: float | None = None
    warmup: int | None = None
    target_loss: float | None = None
    deterministic: bool = False
    resume: bool = False
    synthetic: bool = False
    dtype: str | None = None
    steps_per_epoch: int | None = None
    checkpoint_every: int | None = None
    data_end: str = "cycle"
    val_tokens: int | None = None
    min_tokens_per_sec: float | None = None
    compile: str = "auto"
    embed_tokenizer: bool = False
    parallel: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }
