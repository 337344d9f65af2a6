"""Is a GPU that was asked for used and fast enough, and the CPU no lesser path?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Subject
from falsifiers.run_directory import RunRecord
from falsifiers.runs_under_test import RECORDED, run_under_test

if TYPE_CHECKING:
    from falsifiers.subject import Instance


def falsify_residency_is_proved(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """A run on CUDA recorded which proof of residency held, with numbers that fit the model."""
    import math

    from falsifiers.reference.model import parameter_shapes

    run = run_under_test(subject, case, configuration, assets)
    proof = run.run.get("residency") or {}
    seen = [proof.get(n) for n in ("process_bytes", "device_bytes_grown", "allocated_bytes")]
    cards = {d["device"]: d for d in run.run.get("devices", {}).get("devices", [])}
    card = cards.get(run.run.get("device"), {})
    measured(
        proof=proof.get("proof", "none"),
        device_of_proof=proof.get("device", "none"),
        device_of_run=run.run.get("device", "none"),
        state_bytes=proof.get("state_bytes", 0),
        state_bytes_expected=12 * sum(map(math.prod, parameter_shapes(configuration).values())),
        largest_bytes_seen=max(value or 0 for value in seen),
        explained=proof.get("proof") == "nvml-process" or bool(proof.get("reason")),
        card=card.get("name", "none"),
        compute_capability=float(card.get("compute_capability", 0)),
    )


def falsify_cpu_run_keeps_the_contract(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """A run on the CPU leaves every metric, artifact and digest that one on a GPU leaves."""
    from falsifiers.run_rules import has_nine_fields, has_six_metrics, is_possible
    from falsifiers.tiny_runs import tiny_run

    made = tiny_run(subject, case.run, configuration, case.device)
    run = RunRecord(subject.run_directory(made.folder))
    good = [line for line in run.log if has_six_metrics(line) and is_possible(line)]
    whole = [
        epoch
        for epoch in run.epochs
        if not epoch.checkpoint.fault
        and has_nine_fields(epoch.metadata)
        and epoch.metadata["optimizer_state_sha"] == epoch.checkpoint.optimizer_sha
    ]
    measured(
        device_of_run=run.run.get("device", "none"),
        exit_code=made.exit_code,
        steps_taken=run.outcome["steps"],
        good_lines=len(good),
        epochs_ended=run.outcome["epochs"],
        whole_epochs=len(whole),
        learnt=run.val_losses[0] - run.val_losses[-1],
    )


def falsify_step_time_is_within_budget(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """After the warm-up the median step takes less than the budget for 2048 tokens."""
    from statistics import median

    from falsifiers.reference.model import parameter_shapes

    if case.run == RECORDED:
        run = run_under_test(subject, case, configuration, assets)
        speeds = [line["tokens_per_sec"] for line in run.log[case.warm_up :]]
        seconds = [case.tokens / speed for speed in speeds]
        shapes, device = run.epochs[-1].checkpoint.shapes, run.run.get("device", "none")
    else:
        instance = subject.build(
            configuration, device=case.device, dtype=case.dtype, seed=case.seed
        )
        seconds = _step_seconds(instance, case, configuration)[case.warm_up :]
        shapes = {name: tuple(p.shape) for name, p in instance.parameters().items()}
        device = instance.device
    measured(
        steps_timed=len(seconds),
        milliseconds=1000 * median(seconds),
        is_the_model=dict(shapes) == parameter_shapes(configuration),
        device_of_run=device,
    )


def _step_seconds(instance: Instance, case: Case, configuration: Configuration) -> list[float]:
    """Wall time of each step of one sequence, warm-up included; a step that reports has ended."""
    import time

    from falsifiers.inputs import random_batch

    seconds = []
    for step in range(case.warm_up + case.timed):
        batch = random_batch(configuration, 1, case.tokens, step)
        begun = time.perf_counter()
        instance.train_step(batch)
        seconds.append(time.perf_counter() - begun)
    return seconds


def falsify_device_report_tells_the_states_apart(
    subject: Subject, case: Case, measured: Measured
) -> None:
    """Without CUDA in torch, without a GPU, and with one: the report says which, with names."""
    from falsifiers.torch_builds import reported

    report = reported(subject, case.build)
    devices = report.get("devices", [])
    measured(
        state=report.get("state", ""),
        devices=len(devices),
        unnamed=sum(not device.get("name") for device in devices),
        version=str(report.get("torch", "")),
    )
