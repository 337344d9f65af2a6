"""Is a device taken at its word, and refused in time when it is not there?"""

from __future__ import annotations

from pathlib import Path

from falsifiers.fixtures import Case, Configuration, Measured, Subject


def falsify_malformed_device_is_refused(subject: Subject, case: Case, measured: Measured) -> None:
    """Whatever is outside the device grammar is refused as a usage error that quotes it."""
    from falsifiers.refusals import attempt

    refusal = attempt(lambda: subject.resolve_device(case.spec))
    measured(refused=refusal.refused, kind=refusal.kind, message=refusal.message)


def falsify_wellformed_device_is_accepted(subject: Subject, case: Case, measured: Measured) -> None:
    """A device that the grammar allows, and the machine has, is resolved to itself."""
    from falsifiers.refusals import attempt

    resolved: list[str] = []
    refusal = attempt(lambda: resolved.append(subject.resolve_device(case.spec)))
    measured(refused=refusal.refused, resolved=resolved[0] if resolved else "")


def falsify_refused_device_leaves_nothing(
    subject: Subject, case: Case, measured: Measured, tmp_path: Path
) -> None:
    """The command refuses a device in time, with its own exit code and without a folder."""
    import os
    import subprocess
    import time

    parent = tmp_path / "new"  # absent: whoever makes the run directory early makes this as well
    missing = tmp_path / "missing"
    command = subject.command(
        "pretrain", "--device", case.spec, "--run-dir", str(parent / "run"), "--num-steps", "1",
        "--tokenizer", str(missing), "--dataset", str(missing),
    )  # fmt: skip
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    started = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, env=hidden, timeout=120)
    measured(
        exit_code=process.returncode,
        message=process.stderr.strip(),
        left_behind=parent.exists(),
        seconds=time.perf_counter() - started,
    )


def falsify_model_lies_on_the_device(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """After a training step every parameter lies on the GPU that was asked for."""
    from falsifiers.inputs import random_batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    instance.train_step(random_batch(configuration, 2, 16, case.seed))
    elsewhere = [p for p in instance.parameters().values() if p.device.type != case.device]
    measured(device_kind=instance.device.partition(":")[0], tensors_elsewhere=len(elsewhere))
