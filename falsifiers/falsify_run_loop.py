"""Does a loop that is stopped, resumed or given what it cannot do say so, and keep one log?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from falsifiers.subject import Batch, Instance, RunResult


def falsify_an_interrupted_loop_says_so(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Ctrl-C before a step: the steps before it are logged, none after, and the status tells."""
    from falsifiers.inputs import random_batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    batches = [random_batch(configuration, 2, 8, case.seed + n) for n in range(case.steps)]

    def interrupt(step: int) -> None:
        if step == case.stopped_before:
            raise KeyboardInterrupt

    stopped = instance.run(
        batches, steps=case.steps, log=tmp_path / "stopped", before_step=interrupt
    )
    whole = instance.run(batches, steps=case.steps, log=tmp_path / "whole")
    measured(
        status=stopped.status,
        message=stopped.message,
        lines=len(stopped.logged),
        wrong_steps=sum(line["step"] != number for number, line in enumerate(stopped.logged)),
        status_of_a_whole_run=whole.status,
        lines_of_a_whole_run=len(whole.logged),
        trains=instance.training(),
    )


def falsify_a_step_that_is_not_finite_is_named(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """One gradient becomes NaN at a step: the message says at which, and what was not finite."""
    from falsifiers.inputs import random_batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    batches = [random_batch(configuration, 2, 8, case.seed + n) for n in range(case.steps)]
    begun = 0

    def count(step: int) -> None:
        nonlocal begun
        begun = step

    instance.on_gradient(
        "model.norm.weight", lambda g: g * (float("nan") if begun >= case.spoiled else 1.0)
    )
    result = instance.run(batches, steps=case.steps, log=tmp_path / "log", before_step=count)
    measured(status=result.status, message=result.message, lines=len(result.logged))


def falsify_steps_behind_a_failed_one_are_not_made_up(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """One gradient is NaN once: whatever comes behind that step is refused, or moves weights."""
    from falsifiers.inputs import random_batch
    from falsifiers.subject import SubjectRefused
    from falsifiers.training_state import differing, small

    configuration = small(configuration, case.vocabulary, case.layers)
    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    steps: list[tuple[str, bool]] = []
    instance.on_gradient(
        "model.norm.weight", lambda g: g * (float("nan") if len(steps) == case.spoiled else 1.0)
    )
    for number in range(case.steps):
        before = {name: p.clone() for name, p in instance.parameters().items()}
        refusal = ""
        try:
            instance.train_step(random_batch(configuration, 2, 8, case.seed + number))
        except SubjectRefused as refused:
            refusal = refused.kind
        steps.append((refusal, bool(differing(before, instance.parameters()))))
    measured(
        refusals=", ".join(refusal for refusal, _ in steps),
        idle=sum(not refusal and not moved for refusal, moved in steps),
        moved_by_refused=sum(bool(refusal) and moved for refusal, moved in steps),
        refused_before=sum(bool(refusal) for refusal, _ in steps[: case.spoiled]),
        spoiled_refused=bool(steps[case.spoiled][0]),
    )


def falsify_resumed_log_is_the_uninterrupted_one(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A log that ran past the checkpoint goes on behind it, step for step as if nothing had been.

    One that does not hold the steps before the checkpoint is refused, and stays as it is.
    """
    from falsifiers.inputs import random_batch
    from falsifiers.subject_parts import Provenance
    from falsifiers.training_state import small

    configuration = small(configuration, case.vocabulary, case.layers)
    here = Provenance(dataset_sha256="5a" * 32, accumulation=1, seed=case.seed)
    batches = [random_batch(configuration, 2, 8, case.seed + n) for n in range(case.steps)]
    log, saved = tmp_path / "log", tmp_path / "saved.apr"

    def build(seed: int) -> Instance:
        return subject.build(configuration, device=case.device, dtype=case.dtype, seed=seed)

    whole = build(case.seed).run(batches, steps=case.steps, log=tmp_path / "whole")
    first = build(case.seed)

    def save(step: int) -> None:
        if step == case.saved:
            first.save_checkpoint(saved, here)

    left = first.run(batches, steps=case.ended, log=log, before_step=save).logged
    lines = log.read_text().splitlines(keepends=True)
    again = build(case.seed + 1)
    again.load_checkpoint(saved, here)

    def go_on(batches: list[Batch]) -> RunResult:
        return again.run(batches, steps=case.steps, log=log, first_step=case.saved)

    resumed = go_on(batches[case.saved :])
    broken = {"a step short": lines[: case.saved - 1], "without its first line": lines[1:]}
    taken, touched = [], []
    for label, kept in broken.items():
        log.write_text("".join(kept))
        taken += [label] if go_on([]).status != case.refusal else []
        touched += [label] if log.read_text() != "".join(kept) else []
    names = ("step", "train_loss", "grad_norm", "lr")
    pairs = zip(whole.logged, resumed.logged, strict=False)
    measured(
        status=resumed.status,
        lines=len(resumed.logged),
        lines_to_cut=len(left) - case.saved,
        different=sum(any(a[name] != b[name] for name in names) for a, b in pairs),
        taken=", ".join(taken),
        touched=", ".join(touched),
    )


def falsify_least_throughput_ends_the_run(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A least throughput out of reach ends the run by its own status, one of nothing does not."""
    from falsifiers.inputs import random_batch
    from falsifiers.training_state import small

    configuration = small(configuration, case.vocabulary, case.layers)
    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    batches = [random_batch(configuration, 2, 8, case.seed)] * case.steps
    least = {"reached": case.next_to_nothing, "missed": case.out_of_reach}
    reached, missed = (
        instance.run(batches, steps=case.steps, log=tmp_path / name, min_tokens_per_sec=rate)
        for name, rate in least.items()
    )
    measured(
        status=missed.status,
        message=missed.message,
        lines=len(missed.logged),
        status_within_reach=reached.status,
        lines_within_reach=len(reached.logged),
    )


def falsify_what_cannot_be_trained_on_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """No target, or one position too many, is refused as that; the nearest that can be is taken."""
    import math

    import torch

    from falsifiers.inputs import random_batch
    from falsifiers.refused_files import Tried
    from falsifiers.subject import Batch
    from falsifiers.training_state import differing, small, state_of

    positions = int(configuration["max_position_embeddings"])
    configuration = small(configuration, case.vocabulary, case.layers)
    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    tokens = random_batch(configuration, 2, 8, case.seed).tokens
    none = torch.zeros(2, 8, dtype=torch.bool)
    one = none.clone()
    one[1, 7] = True
    empty, too_long = Batch(tokens, none), random_batch(configuration, 1, positions + 1, case.seed)
    longest = random_batch(configuration, 1, positions, case.seed)
    edges = [_loss_of(instance, batch) for batch in (Batch(tokens, one), longest)]
    before = state_of(instance)
    ways = _ways_in(instance)
    tried = Tried().each(
        (f"{label} of {name}", lambda way=way, batch=batch: way(batch))  # type: ignore[misc]
        for name, batch in {"no target": empty, "too many positions": too_long}.items()
        for label, way in ways.items()
    )
    tried.each([("logits of too many positions", lambda: instance.logits(too_long.tokens[:, :-1]))])
    tried.each([("a step of two without targets", lambda: instance.train_step([empty, empty]))])
    measured(
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        faults=tried.faults(),
        kinds=tried.kinds(),
        moved_tensors=len(differing(before, state_of(instance))),
        finite_at_the_edges=sum(math.isfinite(loss) for loss in edges),
    )


def _ways_in(instance: Instance) -> dict[str, Callable[[Batch], Any]]:
    return {
        "a step": instance.train_step,
        "gradients": instance.loss_and_gradients,
        "an evaluation": lambda batch: instance.evaluate([batch]),
    }


def _loss_of(instance: Instance, batch: Batch) -> float:
    """The mean of the losses that a step, an evaluation and a question for gradients give."""
    losses = (
        instance.train_step(batch).train_loss,
        instance.evaluate([batch]),
        instance.loss_and_gradients(batch)[0],
    )
    return sum(losses) / len(losses)


def falsify_utilisation_counts_what_is_multiplied(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Operations a token are those of the oracle's products; peaks are the data sheets'."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from falsifiers.inputs import random_tokens
    from falsifiers.reference.gradients import loss_and_gradients
    from falsifiers.reference.model import parameter_shapes

    shapes = parameter_shapes(configuration)
    tokens = random_tokens(configuration, 1, case.length + 1, case.seed)
    with FlopCounterMode(display=False) as counter:
        loss_and_gradients(
            {n: torch.ones(shape) for n, shape in shapes.items()}, configuration, tokens
        )
    measured(
        per_token=subject.operations_per_token(configuration, case.length),
        counted=counter.get_total_flops() / case.length,
        peak_of_h200=subject.peak_operations("NVIDIA H200") or 0.0,
        peak_of_h100=subject.peak_operations("NVIDIA H100 80GB HBM3") or 0.0,
        peak_of_h100_pcie=subject.peak_operations("NVIDIA H100 PCIe") or 0.0,
        peak_of_a_stranger=subject.peak_operations("NVIDIA GeForce GT 710") or 0.0,
    )
