"""A training run: steps, guards and the log.

A run ends in one named status. Data that ends early and numbers that stop being numbers end it
within one step, and never reach the log as a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.batch import TokenBatch
from trainer.errors import EXIT_CODES, StreamExhausted, TrainerError
from trainer.gpu_sampler import GpuSampler
from trainer.metrics import MetricsLog, StepMetrics
from trainer.trainer import PretrainTrainer


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        status: ``OK``, or a key of `errors.EXIT_CODES`.
        message: the last line for the user, empty for ``OK``.
        steps: optimizer steps taken and logged.
    """

    status: str
    message: str
    steps: int

    @property
    def exit_code(self) -> int:
        """Exit code of a command that ran this."""
        return EXIT_CODES[self.status]


def run_steps(
    trainer: PretrainTrainer,
    batches: Iterable[TokenBatch],
    *,
    steps: int,
    log_path: Path,
    lr_schedule: Callable[[int], float] | None = None,
    before_step: Callable[[int], None] | None = None,
    on_metrics: Callable[[StepMetrics], None] | None = None,
) -> RunOutcome:
    """Take `steps` optimizer steps and log each to `log_path`, which is overwritten.

    Args:
        lr_schedule: learning rate by step, from 0; None keeps the trainer's own.
        before_step: called with the step about to be taken.
        on_metrics: called with each step's metrics once they are logged.
    """
    stream = iter(batches)
    taken = 0
    try:
        with MetricsLog(log_path) as log, GpuSampler(trainer.device) as sampler:
            for step in range(steps):
                if before_step is not None:
                    before_step(step)
                batch = next_batch(stream, step, steps)
                lr = trainer.lr if lr_schedule is None else lr_schedule(step)
                metrics = measured_step(trainer, batch, lr, sampler)
                log.write(metrics)
                taken += 1
                if on_metrics is not None:
                    on_metrics(metrics)
    except TrainerError as error:
        return RunOutcome(error.status, str(error), taken)
    except KeyboardInterrupt:
        return RunOutcome("INTERRUPTED", f"interrupted after {taken} of {steps} steps", taken)
    return RunOutcome("OK", "", taken)


def next_batch(stream: Iterator[TokenBatch], step: int, steps: int) -> TokenBatch:
    """The next batch of `stream`.

    Raises:
        StreamExhausted: there is none, although step `step` of `steps` was planned.
    """
    batch = next(stream, None)
    if batch is None:
        raise StreamExhausted(
            f"INV-TRAIN-011: no batch for step {step} of {steps}; add data or plan fewer steps"
        )
    return batch


def measured_step(
    trainer: PretrainTrainer, batch: TokenBatch, lr: float, sampler: GpuSampler
) -> StepMetrics:
    """Take one optimizer step and measure it. Raises what `PretrainTrainer.train_batch` raises."""
    step = trainer.step
    started = time.perf_counter()
    loss = trainer.train_batch(batch, lr)
    seconds = time.perf_counter() - started
    grad_norm = trainer.last_grad_norm()
    assert grad_norm is not None
    utilisation = sampler.read()
    return StepMetrics(
        step=step,
        train_loss=loss,
        grad_norm=grad_norm,
        lr=lr,
        tokens_per_sec=batch.target_count() / seconds,
        gpu_util_pct=utilisation.percent,
        gpu_util_absent_reason=utilisation.absent_reason,
        gpu_util_age_s=utilisation.age_s,
    )
