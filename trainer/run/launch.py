"""From a checked plan to a finished run: build, resume, prove residency, record, train.

The run directory is made after everything that can fail has been built, so that a refusal leaves
nothing behind.
"""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainer import build
from trainer import config as configurations
from trainer.batch import TokenBatch
from trainer.checkpoint.position import TrainingPosition
from trainer.checkpoint.restore import restore
from trainer.checkpoint.run_directory import RunDirectory, latest
from trainer.corpus.synthetic import synthetic_steps
from trainer.device_report import device_report
from trainer.errors import ConfigurationError
from trainer.execution import Execution
from trainer.parallel.build import build_parallelism
from trainer.parallel.joint_run import require_same_start
from trainer.parallel.parallelism import Parallelism
from trainer.parallel.world import ALONE, World
from trainer.run import determinism, files, flops
from trainer.run.lock import run_lock
from trainer.run.loop import StepBatches
from trainer.run.memory import memory_needed
from trainer.run.options import SYNTHETIC_HELDOUT_BATCHES
from trainer.run.preflight import Plan
from trainer.run.progress import Progress
from trainer.run.residency import memory_in_use, prove_residency
from trainer.run.session import Outcome, Session
from trainer.run.source import trainer_sha256
from trainer.tokenizer import tokenizer_metadata
from trainer.trainer import PretrainTrainer


def start(plan: Plan, arguments: Sequence[str], *, shown: bool, began: float) -> Outcome:
    """Carry out `plan`.

    Args:
        arguments: the command line, for the record and for the command that resumes.
        shown: whether progress is.
        began: `time.perf_counter()` when the command began.

    Raises:
        TrainerError: nothing was left behind.
    """
    with ExitStack() as held:
        return _start(plan, arguments, held, shown=shown, began=began)


def _start(
    plan: Plan, arguments: Sequence[str], held: ExitStack, *, shown: bool, began: float
) -> Outcome:
    directory = RunDirectory(plan.options.run_dir)
    notices = list(plan.notices)
    parallel = build_parallelism(plan.parallel, plan.world)
    with parallel.ranks.together(), memory_needed(plan.device):
        if plan.options.resume and plan.world.leads:
            held.enter_context(run_lock(directory.root))
        checkpoint = _checkpoint(directory, notices) if plan.options.resume else None
        torch.manual_seed(plan.settings.seed)
        trainer, residency = _build(plan, parallel)
        position = _position(plan, trainer, checkpoint)
        heldout = _heldout(plan)
    require_same_start(trainer)
    progress = Progress(
        position.step,
        plan.options.num_steps,
        shown=shown,
        silent=not plan.world.leads,
        flops_per_token=flops.flops_per_token(plan.config, plan.options.seq_length),
        peak_flops=_peak_flops(plan, trainer),
    )
    try:
        for notice in notices:
            progress.notice(notice)
        with parallel.ranks.together():
            if plan.world.leads:
                directory.root.mkdir(parents=True, exist_ok=True)
                if not plan.options.resume:
                    held.enter_context(run_lock(directory.root))
                    _require_new(directory)
                # Before the folder of checkpoints: without run.json nothing could be resumed.
                _record_start(plan, directory, arguments, position, residency)
                directory.checkpoints.mkdir(exist_ok=True)
                directory.outcome.unlink(missing_ok=True)
        progress.say(
            f"{configurations.stored_parameters(plan.config):,} parameters on {trainer.device} in "
            f"{trainer.compute_dtype}, {plan.settings.steps_per_epoch:,} steps an epoch"
        )
        with closing(_stream(plan, position.step, _epoch_notice(progress))) as stream:
            return Session(
                plan=plan,
                trainer=trainer,
                position=position,
                resumed_from=checkpoint,
                stream=stream,
                heldout=heldout,
                progress=progress,
                resume_command=resume_command(arguments, plan.world),
                writer_metadata=_writer_metadata(plan),
                began=began,
            ).run()
    finally:
        progress.close()


def _checkpoint(directory: RunDirectory, notices: list[str]) -> Path | None:
    if directory.is_before_first_checkpoint():
        notices.append("the run ended before its first checkpoint; it begins again at step 0")
        return None
    return latest(directory.root, notices.append)


def _require_new(directory: RunDirectory) -> None:
    # `preflight` looked before this process held the run.
    if directory.settings.exists():
        raise ConfigurationError(
            f"{directory.root}: another process has just started a run here; choose another "
            "--run-dir"
        )


def resume_command(arguments: Sequence[str], world: World = ALONE) -> str:
    """The command line that goes on with the run that `arguments` started."""
    resume = [] if "--resume" in arguments else ["--resume"]
    return shlex.join([*_program(world), *arguments, *resume])


def _program(world: World) -> list[str]:
    if world.size == 1:
        return ["aprtrain"]
    return ["torchrun", "--nproc-per-node", str(world.size), "-m", "trainer"]


def _build(plan: Plan, parallel: Parallelism) -> tuple[PretrainTrainer, dict[str, Any] | None]:
    on_cuda = plan.device != "cpu"
    used_before = memory_in_use(torch.device(plan.device)) if on_cuda else None
    trainer = build.build_shared_trainer_with_init(
        plan.mode.lr,
        plan.options.seq_length,
        plan.options.seed,
        plan.init_arch,
        plan.options.init,
        device=plan.device,
        compute_dtype=plan.settings.compute_dtype,
        how=Execution(plan.compiled, plan.options.deterministic),
        parallel=parallel,
    )
    return trainer, prove_residency(trainer, used_before) if on_cuda else None


def _position(plan: Plan, trainer: PretrainTrainer, checkpoint: Path | None) -> TrainingPosition:
    if checkpoint is not None:
        return restore(trainer, checkpoint, plan.settings)
    return TrainingPosition(step=0, epoch=0, tokens_seen=0, settings=plan.settings)


def _stream(plan: Plan, first_step: int, on_epoch: Callable[[int], None]) -> Generator[StepBatches]:
    settings = plan.settings
    steps = (
        partial(synthetic_steps, plan.config.vocab_size)
        if plan.corpus is None
        else plan.corpus.training_steps
    )
    return steps(
        seq_length=settings.seq_length,
        micro_batch_size=settings.micro_batch_size,
        accumulation=settings.accumulation,
        seed=settings.seed,
        rank=plan.world.rank,
        world_size=plan.world.size,
        first_step=first_step,
        cycle=plan.options.data_end == "cycle",
        on_epoch=on_epoch,
    )


def _heldout(plan: Plan) -> Sequence[TokenBatch]:
    settings = plan.settings
    if plan.corpus is not None:
        return plan.corpus.heldout(
            seq_length=settings.seq_length,
            batch_size=settings.micro_batch_size,
            limit_tokens=plan.options.val_tokens,
        )
    unseen = synthetic_steps(
        plan.config.vocab_size,
        seq_length=settings.seq_length,
        micro_batch_size=settings.micro_batch_size,
        accumulation=SYNTHETIC_HELDOUT_BATCHES,
        seed=settings.seed + 1,
        cycle=True,
        on_epoch=lambda epoch: None,
    )
    with closing(unseen):
        return next(unseen)


def _epoch_notice(progress: Progress) -> Callable[[int], None]:
    told = False

    def notice(epoch: int) -> None:
        nonlocal told
        if epoch and not told:
            told = True
            progress.notice(
                f"INV-TRAIN-011: the data was used up; pass {epoch + 1} over it begins (said once)"
            )

    return notice


def _writer_metadata(plan: Plan) -> dict[str, Any]:
    if not plan.options.embed_tokenizer or plan.tokenizer is None:
        return {}
    return tokenizer_metadata(plan.tokenizer)


def _peak_flops(plan: Plan, trainer: PretrainTrainer) -> float | None:
    if trainer.device.type != "cuda" or plan.settings.compute_dtype != "bfloat16":
        return None
    each = flops.peak_flops(torch.cuda.get_device_name(trainer.device))
    return None if each is None else each * plan.world.size


def _record_start(
    plan: Plan,
    directory: RunDirectory,
    arguments: Sequence[str],
    position: TrainingPosition,
    residency: dict[str, Any] | None,
) -> None:
    this_start = {
        "command": shlex.join([*_program(plan.world), *arguments]),
        "working_directory": os.getcwd(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "first_step": position.step,
        "options": plan.options.to_json(),
        "device": plan.device,
        "ranks": plan.world.size,
        "parallel": plan.parallel,
        "devices": device_report(),
        "trainer_sha256": trainer_sha256(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "determinism": determinism.settings_in_force(),
        "residency": residency,
    }
    if plan.options.resume:
        run = files.read_run(directory.root)
        run["resumed"] = [*run["resumed"], this_start]
    else:
        run = {
            **this_start,
            "identity": plan.identity,
            "config": asdict(plan.config),
            "parameters": {
                "stored": configurations.stored_parameters(plan.config),
                "nominal": configurations.nominal_parameters(plan.config),
            },
            "sha256": plan.hashes,
            "resumed": [],
        }
    files.write_json(directory.settings, run)
