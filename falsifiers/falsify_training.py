"""Does the loop stop when it must, go on when it may, and log nothing but what it measured?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Series, Subject

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 6


def falsify_nonfinite_step_aborts(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """The first NaN or Inf in loss or gradient norm ends the run within one step, unlogged."""
    import math

    import torch

    from falsifiers.inputs import random_batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    name = "model.layers.1.mlp.down_proj.weight"
    value = {"nan": math.nan, "inf": math.inf}[case.value]

    def poison(step: int) -> None:
        if step == case.step and case.poisoned == "gradient":
            instance.on_gradient(name, lambda gradient: torch.full_like(gradient, value))
        if step == case.step and case.poisoned == "weight":
            instance.set_parameters({name: torch.full_like(instance.parameters()[name], value)})

    batches = [random_batch(configuration, 2, 16, seed) for seed in range(STEPS)]
    result = instance.run(batches, steps=STEPS, log=tmp_path / "log.jsonl", before_step=poison)
    bad = [x for x in result.logged if not math.isfinite(x["train_loss"] + x["grad_norm"])]
    others = [p for n, p in instance.parameters().items() if n != name]
    measured(
        status=result.status,
        message=result.message,
        logged_steps=len(result.logged),
        nonfinite_logged=len(bad),
        spoiled_tensors=sum(not bool(torch.isfinite(p).all()) for p in others),
    )


def falsify_steps_behind_a_halt_move_nothing(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """After a step that is not finite every weight is what it was before that step, bit for bit.

    A loop may have launched clean steps behind it before it reads what became of it.
    """
    import math

    import torch

    from falsifiers.inputs import random_batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    started: list[int] = []
    kept: dict[str, Tensor] = {}

    def poisoned(gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, math.nan) if started[-1] == case.step else gradient

    def keep(step: int) -> None:
        started.append(step)
        if step == case.step:
            kept.update((n, p.clone()) for n, p in instance.parameters().items())

    instance.on_gradient("model.layers.1.mlp.down_proj.weight", poisoned)
    batches = [random_batch(configuration, 2, 16, seed) for seed in range(STEPS)]
    result = instance.run(batches, steps=STEPS, log=tmp_path / "log.jsonl", before_step=keep)
    after = instance.parameters()
    measured(
        status=result.status,
        logged_steps=len(result.logged),
        steps_behind=len(started) - 1 - case.step,
        moved_tensors=sum(not torch.equal(p, after[n]) for n, p in kept.items()),
        compared_tensors=len(kept),
    )


def falsify_finite_run_completes(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Finite losses and norms, large ones too, abort nothing."""
    import math

    from falsifiers.inputs import random_batch, roughen

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed, case.roughness)
    batches = [random_batch(configuration, 2, 16, seed) for seed in range(STEPS)]
    result = instance.run(batches, steps=STEPS, log=tmp_path / "log.jsonl")
    finite = [x for x in result.logged if math.isfinite(x["train_loss"] + x["grad_norm"])]
    measured(
        status=result.status,
        finite_steps=len(finite),
        largest_norm=max((line["grad_norm"] for line in result.logged), default=0.0),
    )


def falsify_logged_loss_and_norm_are_real(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Every logged loss and gradient norm is the oracle's, at the weights of that very step."""
    from falsifiers.inputs import ragged_batch, roughen
    from falsifiers.reference.gradients import global_norm, loss_and_gradients

    instance = subject.build(
        configuration, device=case.device, dtype=case.dtype, seed=case.seed, lr=case.lr
    )
    roughen(instance, case.seed)
    snapshots = []

    def snapshot(step: int) -> None:
        snapshots.append({n: p.detach().cpu().clone() for n, p in instance.parameters().items()})

    batches = [ragged_batch(configuration, 3, 16, seed) for seed in range(STEPS)]
    result = instance.run(batches, steps=STEPS, log=tmp_path / "log.jsonl", before_step=snapshot)
    loss_errors, norm_errors, misreported = [], [], 0
    for weights, batch, line in zip(snapshots, batches, result.logged, strict=True):
        loss, gradients = loss_and_gradients(
            weights, configuration, batch.tokens, batch.target_mask
        )
        norm = global_norm(gradients)
        loss_errors.append(abs(line["train_loss"] - loss) / loss)
        norm_errors.append(abs(line["grad_norm"] - norm) / norm)
        misreported += line["step"] != len(norm_errors) - 1 or line["lr"] != case.lr
    measured(
        logged_steps=len(result.logged),
        loss_error=max(loss_errors),
        norm_error=max(norm_errors),
        smallest_norm=min(line["grad_norm"] for line in result.logged),
        misreported=misreported,
    )


def falsify_throughput_is_measured(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Each logged rate is that step's target tokens over wall time, neither more nor a constant.

    A loop may launch a step before it has read the one before, so a step is over by the time the
    second next begins, and only the whole run has the same length on both clocks.
    """
    import time
    from operator import truediv

    from falsifiers.inputs import mostly_masked, ragged_batch

    instance = subject.build(configuration, device=case.device, dtype="float32", seed=case.seed)
    batches = [ragged_batch(configuration, 2, 64, seed) for seed in range(case.steps)]
    batches = [mostly_masked(batch) for batch in batches]
    clock: list[float] = []
    result = instance.run(
        batches,
        steps=case.steps,
        log=tmp_path / "log.jsonl",
        before_step=lambda step: clock.append(time.perf_counter()),
    )
    clock += 2 * [time.perf_counter()]
    lines = zip(batches, result.logged, strict=True)
    seconds = [batch.targets / line["tokens_per_sec"] for batch, line in lines]
    windows = [clock[step + 2] - clock[step] for step in range(case.steps)]
    measured(
        smallest_ratio=min(map(truediv, windows, seconds)),
        total_ratio=(clock[-1] - clock[0]) / sum(seconds),
    )


def falsify_utilisation_is_absent_without_gpu(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Without a GPU no utilisation is reported, and each step says why."""
    from falsifiers.inputs import random_batch

    instance = subject.build(configuration, device="cpu", dtype="float32", seed=case.seed)
    batches = [random_batch(configuration, 2, 16, seed) for seed in range(STEPS)]
    logged = instance.run(batches, steps=STEPS, log=tmp_path / "log.jsonl").logged
    present = [line for line in logged if line["gpu_util_pct"] is not None]
    silent = [x for x in logged if x["gpu_util_pct"] is None and not x["gpu_util_absent_reason"]]
    measured(logged_steps=len(logged), present=len(present), unexplained=len(silent))


def falsify_utilisation_is_measured(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """On a busy GPU the logged utilisation follows what NVML tells an independent reader."""
    from falsifiers.gpu_load import UtilisationReader, keeping_busy
    from falsifiers.inputs import random_batch

    instance = subject.build(configuration, device=case.device, dtype="bfloat16", seed=case.seed)
    batch = random_batch(configuration, case.batch, case.length, case.seed)
    with UtilisationReader() as reader:
        result = instance.run(
            keeping_busy(batch, case.steps), steps=case.steps, log=tmp_path / "log.jsonl"
        )
    logged = result.logged[case.steps // 2 :]  # by then the driver's averaging window is full
    seen = [x["gpu_util_pct"] for x in logged if x["gpu_util_pct"] is not None]
    silent = [x for x in logged if x["gpu_util_pct"] is None and not x["gpu_util_absent_reason"]]
    measured(
        status=result.status,
        present=len(seen),
        unexplained=len(silent),
        lowest=min(seen, default=-1.0),
        highest=max(seen, default=-1.0),
        busy=reader.late_mean(),
        difference=abs(sum(seen) / max(1, len(seen)) - reader.late_mean()),
    )


def falsify_exhausted_stream_stops(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """When the data ends the run ends, with its own status and nothing logged in its place."""
    from falsifiers.inputs import random_batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    batches = [random_batch(configuration, 2, 16, seed) for seed in range(STEPS // 2)]
    result = instance.run(batches, steps=STEPS, log=tmp_path / "log.jsonl")
    measured(status=result.status, logged_steps=len(result.logged), message=result.message)


def falsify_real_text_is_learnt(
    subject: Subject,
    case: Case,
    measured: Measured,
    series: Series,
    configuration: Configuration,
    assets: Assets,
    tmp_path: Path,
) -> None:
    """On real tokenized source the loss starts at that of a fresh model and falls."""
    from falsifiers.tokens import source_windows

    windows = source_windows(
        assets("gpt2-vocabulary-encoder"),
        assets("gpt2-vocabulary-merges"),
        case.batch * case.steps,
        case.length,
    )
    instance = subject.build(
        configuration, device=case.device, dtype=case.dtype, seed=case.seed, lr=case.lr
    )
    batches = windows.batches(case.batch)
    result = instance.run(batches, steps=case.steps, log=tmp_path / "log.jsonl")
    losses = [line["train_loss"] for line in result.logged]
    tail = losses[-5:]
    points = list(enumerate(losses))
    series("loss", points, x="optimizer step", y="training loss", y_unit="nats")
    measured(
        status=result.status,
        steps_taken=len(losses),
        first_loss=losses[0],
        final_loss=sum(tail) / len(tail),
        unigram_entropy=windows.unigram_entropy(),
    )
