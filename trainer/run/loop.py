"""Optimizer steps, one after another, each measured and logged in order.

On CUDA a step is launched before the one before it is read, so the GPU never waits for the log; a
step that is not finite makes the device skip every later update, so reading late loses nothing. On
a CPU nothing runs ahead. A run ends in one named status: data that ends early and numbers that stop
being numbers end it within one step, and never reach the log as a step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from trainer.batch import TokenBatch
from trainer.errors import EXIT_CODES, StreamExhausted, TrainerError
from trainer.pending import PendingStep
from trainer.run.gpu_sampler import GpuSampler
from trainer.run.metrics import MetricsLog, StepMetrics
from trainer.trainer import PretrainTrainer

StepBatches: TypeAlias = TokenBatch | Sequence[TokenBatch]
"""The micro-batches of one optimizer step; a single batch is a step without accumulation."""


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


@dataclass(frozen=True)
class StepPlan:
    """Which steps are taken, and who is told.

    Attributes:
        first: optimizer steps done before; the next one has this number.
        end: the step to stop before.
        planned: steps of the whole run, for messages.
        lr_schedule: learning rate by step, from 0; None keeps the trainer's own.
        before_step: called with the step about to be launched.
        on_step: called with each step's metrics and target tokens once they are logged.
        stop_requested: asked before each step; True ends the steps early, all launched ones read.
    """

    first: int
    end: int
    planned: int
    lr_schedule: Callable[[int], float] | None = None
    before_step: Callable[[int], None] | None = None
    on_step: Callable[[StepMetrics, int], None] | None = None
    stop_requested: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class _Launched:
    pending: PendingStep
    batches: StepBatches
    begun: float


def run_steps(
    trainer: PretrainTrainer,
    steps_of_batches: Iterable[StepBatches],
    *,
    steps: int,
    first_step: int = 0,
    log_path: Path,
    lr_schedule: Callable[[int], float] | None = None,
    before_step: Callable[[int], None] | None = None,
    on_metrics: Callable[[StepMetrics], None] | None = None,
) -> RunOutcome:
    """Take optimizer steps `first_step` up to `steps`, and log each to `log_path`.

    Args:
        first_step: steps already in the log; what it holds beyond them is cut off.
        lr_schedule: learning rate by step, from 0; None keeps the trainer's own.
        before_step: called with the step about to be launched.
        on_metrics: called with each step's metrics once they are logged.
    """
    taken = first_step

    def count(metrics: StepMetrics, targets: int) -> None:
        nonlocal taken
        taken += 1
        if on_metrics is not None:
            on_metrics(metrics)

    plan = StepPlan(first_step, steps, steps, lr_schedule, before_step, count)
    try:
        with MetricsLog(log_path, keep=first_step) as log, GpuSampler(trainer.device) as sampler:
            take_steps(trainer, iter(steps_of_batches), plan, log, sampler)
    except TrainerError as error:
        return RunOutcome(error.status, str(error), taken)
    except KeyboardInterrupt:
        return RunOutcome("INTERRUPTED", f"interrupted after {taken} of {steps} steps", taken)
    return RunOutcome("OK", "", taken)


def take_steps(
    trainer: PretrainTrainer,
    stream: Iterator[StepBatches],
    plan: StepPlan,
    log: MetricsLog,
    sampler: GpuSampler,
) -> int:
    """Take the steps of `plan`; returns how many steps are then done, all read and logged.

    Raises:
        StreamExhausted, NumericalInstability: every step before it has been logged.
    """
    ahead = 1 if trainer.device.type == "cuda" else 0
    launched: deque[_Launched] = deque()
    completed = 0.0

    def read() -> None:
        nonlocal completed
        oldest = launched.popleft()
        since = max(completed, oldest.begun)
        try:
            metrics = measured(oldest.pending, oldest.batches, since, sampler)
        except BaseException:
            launched.clear()  # what follows a step that failed was never taken
            raise
        completed = time.perf_counter()
        log.write(metrics)
        if plan.on_step is not None:
            plan.on_step(metrics, oldest.pending.targets)

    step = plan.first
    try:
        while step < plan.end and not plan.stop_requested():
            launched.append(_launch(trainer, stream, step, plan))
            step += 1
            if len(launched) > ahead:
                read()
    finally:
        # A step that was launched was taken, whatever ended the loop; its line belongs in the log.
        while launched:
            read()
    return step


def next_batch(stream: Iterator[StepBatches], step: int, steps: int) -> StepBatches:
    """The batches of the next optimizer step of `stream`.

    Raises:
        StreamExhausted: there are none, although step `step` of `steps` was planned.
    """
    batches = next(stream, None)
    if batches is None:
        raise StreamExhausted(
            f"INV-TRAIN-011: no batch for step {step} of {steps}; add data or plan fewer steps"
        )
    return batches


def measured(
    pending: PendingStep, batches: StepBatches, since: float, sampler: GpuSampler
) -> StepMetrics:
    """Wait for a launched step and measure it.

    Args:
        batches: what the step was launched with.
        since: `time.perf_counter()` when the step began to be what the process was busy with.

    Raises:
        NumericalInstability: its loss or gradient norm is NaN or infinite.
    """
    result = pending.result()
    seconds = time.perf_counter() - since
    utilisation = sampler.read()
    return StepMetrics(
        step=pending.step,
        train_loss=result.loss,
        grad_norm=result.grad_norm,
        lr=pending.lr,
        tokens_per_sec=pending.targets / seconds,
        gpu_util_pct=utilisation.percent,
        gpu_util_absent_reason=utilisation.absent_reason,
        gpu_util_age_s=utilisation.age_s,
    )


def measured_step(
    trainer: PretrainTrainer, batches: StepBatches, lr: float, sampler: GpuSampler
) -> StepMetrics:
    """Take one optimizer step on its own, wait for it, and measure it."""
    begun = time.perf_counter()
    return measured(trainer.launch_step(micro_batches(batches), lr), batches, begun, sampler)


def micro_batches(batches: StepBatches) -> Sequence[TokenBatch]:
    """The micro-batches of one optimizer step as a sequence."""
    return (batches,) if isinstance(batches, TokenBatch) else batches


def _launch(
    trainer: PretrainTrainer, stream: Iterator[StepBatches], step: int, plan: StepPlan
) -> _Launched:
    if plan.before_step is not None:
        plan.before_step(step)
    begun = time.perf_counter()
    batches = next_batch(stream, step, plan.planned)
    lr = trainer.lr if plan.lr_schedule is None else plan.lr_schedule(step)
    return _Launched(trainer.launch_step(micro_batches(batches), lr), batches, begun)
