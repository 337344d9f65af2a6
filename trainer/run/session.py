"""A run from its first step to its last file: epochs, validation, guards, checkpoints, signals.

An epoch is a fixed number of optimizer steps. At its end the model is validated, the guards look at
the held-out loss, and only then is a checkpoint written, so that nobody resumes from a diverged
model. Every named ending is recorded in `outcome.json`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.batch import TokenBatch
from trainer.checkpoint.epoch_metadata import EpochSummary
from trainer.checkpoint.position import TrainingPosition
from trainer.checkpoint.run_directory import RunDirectory
from trainer.checkpoint.writer import WrittenCheckpoint
from trainer.errors import (
    EXIT_CODES,
    CheckpointError,
    StreamExhausted,
    ThroughputOutOfRange,
    TrainerError,
)
from trainer.parallel.joint_run import JointLog, JointWriter
from trainer.parallel.ranks import peers_missed
from trainer.run import files, guards
from trainer.run.curves import write_curves
from trainer.run.gpu_sampler import GpuSampler
from trainer.run.guards import ThroughputGuard
from trainer.run.loop import StepBatches, StepPlan, take_steps
from trainer.run.memory import memory_needed, peak_bytes
from trainer.run.metrics import StepMetrics
from trainer.run.preflight import Plan
from trainer.run.progress import Progress
from trainer.run.signals import StopSignals
from trainer.trainer import PretrainTrainer

COLLECT_EVERY = 1000
"""Steps between two runs of Python's garbage collector, which is off while steps are taken."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended; outcome.json.

    Attributes:
        status: a key of `errors.EXIT_CODES`.
        message: why, empty for ``OK``.
        exit_code: of the command.
        steps, epochs, tokens_seen: since the start of training, resumed or not.
        wall_seconds: of this start, from the command on.
        startup_seconds: until the first step of this start was complete; None if none was.
        peak_memory_bytes: on the GPU as torch allocated it; of the process on a CPU.
        best_val_loss, final_val_loss: held-out, nats per token; None before the first epoch's end.
        target_loss, target_reached: reaching it stops nothing.
        checkpoint: the newest file of the run; None if there is none yet.
        resume_command: what goes on from there; None if nothing is left to do, or would help.
    """

    status: str
    message: str
    exit_code: int
    steps: int
    epochs: int
    tokens_seen: int
    wall_seconds: float
    startup_seconds: float | None
    peak_memory_bytes: int
    best_val_loss: float | None
    final_val_loss: float | None
    target_loss: float
    target_reached: bool
    checkpoint: str | None
    resume_command: str | None


@dataclass
class EpochTally:
    """What is added up within an epoch; JSON values, so that a checkpoint can hold it."""

    loss_sum: float = 0.0
    targets: int = 0
    grad_norm_max: float = 0.0
    seconds: float = 0.0

    def add(self, metrics: StepMetrics, targets: int) -> None:
        """Count one more step."""
        self.loss_sum += metrics.train_loss * targets
        self.targets += targets
        self.grad_norm_max = max(self.grad_norm_max, metrics.grad_norm)


@dataclass
class Session:
    """Drives `trainer` through what is left of `plan`.

    Attributes:
        plan: checked by `preflight`.
        trainer: at the step that `position` names.
        position: where to begin; step 0 in a new run.
        resumed_from: the file that `position` was read from; None if it is step 0.
        stream: the micro-batches of each optimizer step, from the position on.
        heldout: scored at each epoch's end.
        resume_command: for the user to type after an interrupt.
        writer_metadata: further metadata of each checkpoint.
        began: `time.perf_counter()` when the command began.
    """

    plan: Plan
    trainer: PretrainTrainer
    position: TrainingPosition
    resumed_from: Path | None
    stream: Iterator[StepBatches]
    heldout: Sequence[TokenBatch]
    progress: Progress
    resume_command: str
    writer_metadata: dict[str, Any]
    began: float

    def __post_init__(self) -> None:
        self._ranks = self.trainer.parallel.ranks
        self.directory = RunDirectory(self.plan.options.run_dir)
        self._val_losses = list(self.position.history)
        self._tally = EpochTally(**self.position.loop)
        self._step = self.position.step
        self._saved_step: int | None = self._step or None  # of step 0 there is no file yet
        self._tokens = self.position.tokens_seen
        self._throughput = ThroughputGuard(self.plan.options.min_tokens_per_sec)
        self._startup: float | None = None
        self._checkpoint = self.resumed_from

    def run(self) -> Outcome:
        """Train, and leave every file of the run behind."""
        with StopSignals(self._ranks) as signals:
            try:
                status, message = self._guarded(signals)
            except KeyboardInterrupt:
                status, message = "INTERRUPTED", "stopped at once by a second Ctrl-C"
            outcome = self._outcome(status, message)
            self._draw()
            if self._ranks.world.leads:
                self._if_possible(lambda: files.write_json(self.directory.outcome, asdict(outcome)))
        return outcome

    def _guarded(self, signals: StopSignals) -> tuple[str, str]:
        try:
            with (
                memory_needed(self.trainer.device),
                peers_missed(),
                JointWriter(self.writer_metadata, self._ranks) as writer,
            ):
                return self._train(writer, signals)
        except OSError as error:
            failure: TrainerError = CheckpointError(
                f"{error}; the log cannot be written, so the run stops"
            )
        except TrainerError as error:
            failure = error
        return failure.status, str(failure)

    def _train(self, writer: JointWriter, signals: StopSignals) -> tuple[str, str]:
        log = JointLog(self.directory.log, self._step, self._ranks)
        with log, GpuSampler(self.trainer.device) as sampler, _collecting_rarely():
            while True:
                # Before a validation, which may take longer than whoever sent the signal waits.
                if signals.requested():
                    self._save(writer, log)
                    writer.wait()
                    raise signals.as_error(f"stopped after {self._step} steps; {self._checkpoint}")
                if len(self._val_losses) < self._epochs_due():
                    self._end_epoch(writer, log)
                if self._step == self.plan.options.num_steps:
                    return "OK", ""
                if guards.stops_early(self._val_losses):
                    return self._stopped_early()
                try:
                    self._take_steps_to(self._next_boundary(), log, sampler, signals)
                except (StreamExhausted, ThroughputOutOfRange):
                    self._save(writer, log)
                    raise
                if self._checkpoint_is_due():
                    self._save(writer, log)
                writer.poll()
                gc.collect()

    def _take_steps_to(
        self, end: int, log: JointLog, sampler: GpuSampler, signals: StopSignals
    ) -> None:
        began = time.perf_counter()
        plan = StepPlan(
            first=self._step,
            end=end,
            planned=self.plan.options.num_steps,
            lr_schedule=self.plan.settings.schedule,
            on_step=self._count,
            stop_requested=signals.requested,
        )
        try:
            take_steps(self.trainer, self.stream, plan, log, sampler)
        finally:
            self._tally.seconds += time.perf_counter() - began

    def _count(self, metrics: StepMetrics, targets: int) -> None:
        if self._startup is None:
            self._startup = time.perf_counter() - self.began
        self._step += 1
        self._tokens += targets
        self._tally.add(metrics, targets)
        self.progress.step(metrics)
        if self.plan.options.min_tokens_per_sec is not None:
            with self._ranks.together():
                self._throughput.add(metrics.tokens_per_sec)

    def _next_boundary(self) -> int:
        """The next step count at which something other than a step is to be done."""
        every = [self.plan.settings.steps_per_epoch, COLLECT_EVERY]
        if self.plan.options.checkpoint_every is not None:
            every.append(self.plan.options.checkpoint_every)
        following = min((self._step // period + 1) * period for period in every)
        return min(following, self.plan.options.num_steps)

    def _epochs_due(self) -> int:
        """Epochs that have all their steps; the last one of a run may have fewer."""
        full, rest = divmod(self._step, self.plan.settings.steps_per_epoch)
        return full + (rest > 0 and self._step == self.plan.options.num_steps)

    def _checkpoint_is_due(self) -> bool:
        every = self.plan.options.checkpoint_every
        at_epoch_end = len(self._val_losses) < self._epochs_due()
        return every is not None and self._step % every == 0 and not at_epoch_end

    def _end_epoch(self, writer: JointWriter, log: JointLog) -> None:
        began = time.perf_counter()
        epoch = len(self._val_losses)
        val_loss = self.trainer.evaluate(self.heldout)
        guards.require_finite(epoch, val_loss)
        self._val_losses.append(val_loss)
        vocabulary = self.plan.config.vocab_size
        guards.require_convergence(self._val_losses, self.plan.mode.name, vocabulary)
        tally, self._tally = self._tally, EpochTally()
        summary = EpochSummary(
            epoch=epoch,
            train_loss=tally.loss_sum / tally.targets,
            val_loss=val_loss,
            wall_seconds=tally.seconds + time.perf_counter() - began,
            tokens_seen=self._tokens,
            grad_norm_max=tally.grad_norm_max,
            extras={"step": self._step, "target_reached": val_loss <= self.plan.mode.target_loss},
        )
        self._save(writer, log, summary)
        self.progress.say(
            f"epoch {epoch}  train loss {summary.train_loss:.4f}  held-out loss {val_loss:.4f}  "
            f"{summary.wall_seconds:.1f} s"
        )
        self._draw()

    def _save(self, writer: JointWriter, log: JointLog, epoch: EpochSummary | None = None) -> None:
        if epoch is None and self._step == self._saved_step:
            return
        log.sync()
        position = TrainingPosition(
            step=self._step,
            epoch=len(self._val_losses),
            tokens_seen=self._tokens,
            settings=self.plan.settings,
            history=tuple(self._val_losses),
            loop=asdict(self._tally),
        )
        path = (
            self.directory.step_checkpoint(self._step)
            if epoch is None
            else self.directory.epoch_checkpoint(epoch.epoch)
        )
        writer.save(self.trainer, position, path, epoch=epoch, on_done=self._written)
        self._saved_step = self._step
        if not self._ranks.world.leads:
            self._checkpoint = path

    def _written(self, checkpoint: WrittenCheckpoint) -> None:
        self._checkpoint = checkpoint.path

    def _stopped_early(self) -> tuple[str, str]:
        best = min(self._val_losses)
        return "EARLY_STOP", (
            f"INV-TRAIN-004: no held-out loss below {best:.4f}, that of epoch "
            f"{self._val_losses.index(best)}, in the last {guards.PATIENCE} epochs"
        )

    def _draw(self) -> None:
        if not self._ranks.world.leads:
            return
        directory, period = self.directory, self.plan.settings.steps_per_epoch
        self._if_possible(
            lambda: write_curves(directory.curves, directory.log, self._val_losses, period)
        )

    def _if_possible(self, write: Callable[[], None]) -> None:
        """A report that cannot be written must not hide how the run ended.

        The disk may be full, or lines of the log that an earlier start wrote be damaged.
        """
        try:
            write()
        except (OSError, ValueError, TypeError) as error:
            self.progress.notice(f"not written: {error}")

    def _outcome(self, status: str, message: str) -> Outcome:
        losses, target = self._val_losses, self.plan.mode.target_loss
        # A run that diverged would do so again from its last checkpoint, with the same settings.
        finished = status in ("OK", "EARLY_STOP", "DIVERGENCE")
        return Outcome(
            status=status,
            message=message,
            exit_code=EXIT_CODES[status],
            steps=self._step,
            epochs=len(losses),
            tokens_seen=self._tokens,
            wall_seconds=time.perf_counter() - self.began,
            startup_seconds=self._startup,
            peak_memory_bytes=peak_bytes(self.trainer.device),
            best_val_loss=min(losses, default=None),
            final_val_loss=losses[-1] if losses else None,
            target_loss=target,
            target_reached=any(loss <= target for loss in losses),
            checkpoint=None if self._checkpoint is None else str(self._checkpoint),
            resume_command=None if finished else self.resume_command,
        )


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Python's cyclic garbage collector stops every thread at moments of its own choosing."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
