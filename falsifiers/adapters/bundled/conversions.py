"""The protocol's words in the trainer's, and its errors in the protocol's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from falsifiers.subject import Batch, Configuration, SubjectRefused
from trainer import config
from trainer.batch import TokenBatch
from trainer.errors import CheckpointError, TrainerError
from trainer.run import files


@contextmanager
def refusals() -> Iterator[None]:
    """The trainer's own errors, as the protocol spells them."""
    try:
        yield
    except TrainerError as error:
        raise SubjectRefused(error.status, str(error)) from error


def model_config(fields: Configuration) -> config.ModelConfig:
    """The trainer's form of an architecture."""
    return config.ModelConfig(**fields)


def token_batch(batch: Batch) -> TokenBatch:
    """The trainer's form of a batch."""
    return TokenBatch(batch.tokens, batch.target_mask)


def plain_batch(batch: TokenBatch) -> Batch:
    """The protocol's form of a batch."""
    return Batch(batch.tokens, batch.target_mask)


def made_by_trainers(run: Path) -> set[str]:
    """Digests of the trainers that started or resumed the run, "" where none is recorded."""
    try:
        record = files.read_run(run)
    except CheckpointError:
        return {""}
    return {str(start.get("trainer_sha256", "")) for start in (record, *record["resumed"])}
