"""Is a deterministic run the same run twice, and another seed another run?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor


def _train(
    subject: Subject, case: Case, configuration: Configuration, seed: int
) -> tuple[list[tuple[float, float]], dict[str, Tensor]]:
    """Loss and gradient norm of every step, and copies of the weights after the last."""
    from falsifiers.inputs import random_batch
    from falsifiers.subject import Execution

    instance = subject.build(
        configuration,
        device=case.device,
        dtype=case.dtype,
        seed=seed,
        lr=1e-3,
        execution=Execution(compiled=case.compiled, deterministic=True),
    )
    batches = (random_batch(configuration, case.batch, case.length, s) for s in range(case.steps))
    metrics = [instance.train_step(batch) for batch in batches]
    weights = {name: p.clone() for name, p in instance.parameters().items()}
    return [(m.train_loss, m.grad_norm) for m in metrics], weights


def falsify_same_seed_gives_the_same_bits(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Two deterministic runs of one seed agree in every loss, every norm and every weight."""
    import torch

    from falsifiers.process_settings import nothing_reproducible

    with nothing_reproducible():
        first, weights = _train(subject, case, configuration, case.seed)
        second, again = _train(subject, case, configuration, case.seed)
        in_force = torch.are_deterministic_algorithms_enabled()
    pairs = list(zip(first, second, strict=True))
    measured(
        steps_taken=len(first),
        differing_steps=sum(one != other for one, other in pairs),
        differing_tensors=sum(not torch.equal(weights[n], again[n]) for n in weights),
        distinct_losses=len({loss for loss, _ in first}),
        loss_difference=max(abs(one[0] - other[0]) for one, other in pairs),
        in_force=in_force,
    )


def falsify_seeds_matter(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Runs of two seeds on the same batches differ in their losses."""
    from falsifiers.process_settings import nothing_reproducible

    with nothing_reproducible():
        first, _ = _train(subject, case, configuration, case.seed)
        second, _ = _train(subject, case, configuration, case.seed + 1)
    pairs = zip(first, second, strict=True)
    measured(largest_difference=max(abs(one[0] - other[0]) for one, other in pairs))


def falsify_settings_are_in_force(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """A deterministic instance sets what bitwise reproducibility needs; nobody else has before."""
    import os

    import torch

    from falsifiers.process_settings import (
        WORKSPACE,
        nothing_reproducible,
        refuses_undefined_order,
    )
    from falsifiers.subject import Execution

    with nothing_reproducible():
        before = torch.are_deterministic_algorithms_enabled()
        subject.build(
            configuration,
            device=case.device,
            dtype=case.dtype,
            seed=case.seed,
            execution=Execution(deterministic=True),
        )
        measured(
            before=before,
            workspace=os.environ.get(WORKSPACE, ""),
            deterministic=torch.are_deterministic_algorithms_enabled(),
            benchmark=torch.backends.cudnn.benchmark,
            undefined_order_refused=refuses_undefined_order(case.device),
        )


def falsify_flag_reaches_the_run(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """A run with --deterministic on its command line recorded the settings that it ran under."""
    from falsifiers.process_settings import WORKSPACE
    from falsifiers.run_directory import RunRecord
    from falsifiers.tiny_runs import tiny_run

    made = tiny_run(subject, "whole", configuration, case.device)
    run = RunRecord(subject.run_directory(made.folder)).run
    recorded = run.get("determinism", {})
    measured(
        workspace=str(recorded.get(WORKSPACE)),
        deterministic=recorded.get("deterministic_algorithms") is True,
        warns_only=recorded.get("warn_only") is not False,
        benchmark=recorded.get("cudnn_benchmark") is not False,
    )
