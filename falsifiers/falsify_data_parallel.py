"""Do two processes that share a step take the step that one process takes?"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Configuration, Measured, Subject
from falsifiers.run_directory import RunRecord

if TYPE_CHECKING:
    from torch import Tensor

    from falsifiers.parallel_runs import SharedRun, Twin


def falsify_two_ranks_are_one_process(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Weights, moments, losses and norms are those of one process with both ranks' batches."""
    from falsifiers.errors import worst_relative_error
    from falsifiers.parallel_runs import COMPARED, EPOCH, state_of, training_state

    _run, record, alone = _measured_run(subject, case, configuration)
    found = training_state(record.epochs[COMPARED // EPOCH - 1].path)
    exact = state_of(alone.instance)
    found = {name: tensor for name, tensor in found.items() if name in exact}
    error, worst = worst_relative_error(found, exact)
    lines = record.log[:COMPARED]
    pairs = [
        (line[name], getattr(metrics, name))
        for line, metrics in zip(lines, alone.metrics, strict=True)
        for name in ("train_loss", "grad_norm", "lr")
    ]
    own = _gradients(alone, configuration, 0, ranks=1)
    both = _gradients(alone, configuration, 0)
    measured(
        steps_compared=len(lines),
        different_elements=_different(found, exact),
        state_error=error,
        worst_state=worst,
        different_numbers=sum(a != b for a, b in pairs),
        number_error=max(abs(a - b) / max(abs(b), 1e-30) for a, b in pairs),
        rank_alone=min(_apart(own, both)),
    )


def falsify_no_earlier_gradient_is_left(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """The norm of each step is the oracle's for that step alone, later as at first."""
    from falsifiers.parallel_runs import COMPARED
    from falsifiers.reference.gradients import global_norm

    _, record, alone = _measured_run(subject, case, configuration)
    gradients = [_gradients(alone, configuration, step) for step in range(COMPARED)]
    norms = [global_norm(g) for g in gradients]
    logged = [line["grad_norm"] for line in record.log[:COMPARED]]
    errors = [abs(a - b) / b for a, b in zip(logged, norms, strict=True)]
    pairs = itertools.pairwise(gradients)
    stale = [global_norm({n: new[n] + old[n] for n in new}) for old, new in pairs]
    measured(
        first_error=errors[0],
        later_error=max(errors[1:]),
        stale_error=min(abs(a - b) / b for a, b in zip(stale, norms[1:], strict=True)),
    )


def falsify_one_bad_rank_halts_all(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """A step that is not finite on one rank ends every rank, at that step, with one status."""
    import re

    from falsifiers.parallel_runs import SPOILED_RANK, SPOILED_STEP, shared_run, spoiled_ranks

    run = shared_run(subject, configuration, case.parallel, case.device)
    record = RunRecord(subject.run_directory(run.made.folder))
    named = re.findall(r"\b(?:NUMERICAL_INSTABILITY|PEER_LOST)\b", run.made.messages)
    measured(
        status=record.outcome["status"],
        launch_failed=run.made.exit_code != 0,
        ranks_halted=run.made.messages.count(f"INV-TRAIN-007: step {SPOILED_STEP}:"),
        peers_lost=named.count("PEER_LOST"),
        spoiled_step=SPOILED_STEP,
        spoiled_elsewhere=spoiled_ranks(subject, run) != [(SPOILED_STEP, SPOILED_RANK)],
        steps_taken=record.outcome["steps"],
        lines=len(record.log),
        spoiled_checkpoints=sum(bool(epoch.checkpoint.fault) for epoch in record.epochs),
    )


def falsify_reduction_is_the_mean(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Norm and first moment are those of the float64 mean over both ranks' targets."""
    from falsifiers.errors import worst_relative_error
    from falsifiers.parallel_runs import training_state
    from falsifiers.reference import adamw

    _, record, alone = _measured_run(subject, case, configuration)
    means = [_gradients(alone, configuration, step) for step in range(2)]
    first, second = (adamw.clip_by_global_norm(g, case.clip) for g in means)
    moment = {
        n: (1 - case.beta1) * (case.beta1 * first[0][n] + second[0][n]) for n in alone.before[0]
    }
    state = training_state(record.epochs[0].path)
    found = {n: state[f"__training__.optim.{n}.exp_avg"] for n in moment}
    error, worst = worst_relative_error(found, moment)
    measured(
        norm_error=abs(record.log[0]["grad_norm"] - first[1]) / first[1],
        moment_error=error,
        worst_moment=worst,
        first_norm=first[1],
    )


def falsify_reduction_hides(subject: Subject, case: Case, measured: Measured) -> None:
    """Of a step that two GPUs share, hardly any is not also in the step of each by itself."""
    from statistics import median

    from falsifiers.rank_speed import run_alone, run_together, step_seconds

    alone = run_alone(subject, case)
    together = run_together(subject, case)
    medians = [median(step_seconds(run)[case.warm_up :]) for run in alone]
    shared = step_seconds(together)[case.warm_up :]
    slower = max(medians)
    measured(
        overhead=1 - slower / median(shared),
        milliseconds_together=1000 * median(shared),
        milliseconds_alone=1000 * slower,
        gpus_apart=slower / min(medians) - 1,
        steps_timed=len(shared),
        ranks=together.identity["world_size"],
        ranks_alone=max(run.identity["world_size"] for run in alone),
        same_work=len({_work(run) for run in (*alone, together)}) == 1,
    )


def _work(run: RunRecord) -> str:
    """What a run trains and how, apart from how many share it."""
    import json

    shared = ("world_size", "parallel")
    own = {name: value for name, value in run.identity.items() if name not in shared}
    return json.dumps(own, sort_keys=True)


def _measured_run(
    subject: Subject, case: Case, configuration: Configuration
) -> tuple[SharedRun, RunRecord, Twin]:
    from falsifiers.parallel_runs import shared_run, twin

    run = shared_run(subject, configuration, case.parallel, case.device)
    record = RunRecord(subject.run_directory(run.made.folder))
    return run, record, twin(subject, configuration, run, case.device)


def _gradients(
    alone: Twin, configuration: Configuration, step: int, ranks: int = 2
) -> dict[str, Tensor]:
    """The oracle's mean gradient of a step over the batches of the first `ranks` ranks."""
    import torch

    from falsifiers.parallel_runs import untied
    from falsifiers.reference.gradients import loss_and_gradients

    tokens = torch.cat([batch.tokens for batch in alone.batches[step][:ranks]])
    return loss_and_gradients(alone.before[step], untied(configuration), tokens)[1]


def _different(found: dict[str, Tensor], exact: dict[str, Tensor]) -> int:
    missing = sum(exact[name].numel() for name in exact.keys() - found.keys())
    return missing + sum(int((found[name] != exact[name]).sum()) for name in found)


def _apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[float]:
    from falsifiers.errors import relative_error

    return [relative_error(one[name], tensor) for name, tensor in other.items() if tensor.any()]


def falsify_shares_add_up_to_the_heldout_loss(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Ranks together score each held-out target once, and go through the model equally often.

    Ranks are tried one after another in this process; what they exchange are two sums.
    """
    from falsifiers.inputs import unequal_micro_batches

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    batches = unequal_micro_batches(configuration, case.batches, case.length, case.seed)
    shares = [
        subject.share_of_heldout(
            batches if case.known == "all" else iter(batches), rank=rank, world_size=case.ranks
        )
        for rank in range(case.ranks)
    ]
    targets = [sum(batch.targets for batch in share) for share in shares]
    pairs = [(share, count) for share, count in zip(shares, targets, strict=True) if count]
    total = sum(instance.evaluate(share) * count for share, count in pairs)
    exact = instance.evaluate(batches)
    rounds = [len(share) for share in shares]
    measured(
        targets=sum(batch.targets for batch in batches),
        scored=sum(targets),
        loss_error=abs(total / max(sum(targets), 1) - exact) / exact,
        rounds_apart=max(rounds) - min(rounds),
        without_a_target=sum(batch.targets == 0 for share in shares for batch in share),
        ranks_with_targets=len(pairs),
    )


def falsify_ranks_report_the_heldout_loss(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """The held-out loss that two ranks record is the oracle's at the checkpoint's weights."""
    import torch

    from falsifiers.parallel_runs import COMPARED, EPOCH, LENGTH, MICRO_BATCH, shared_run, untied
    from falsifiers.reference.loss import mean_loss
    from falsifiers.run_directory import weights_of
    from falsifiers.tiny_runs import windows

    run = shared_run(subject, configuration, case.parallel, case.device)
    record = RunRecord(subject.run_directory(run.made.folder))
    tokens, mask = windows(run.dataset / "heldout-00000.bin", LENGTH, padded=True)
    errors = []
    for epoch in record.epochs[: COMPARED // EPOCH]:
        weights = {n: torch.tensor(w) for n, w in weights_of(epoch.path).items()}
        exact = mean_loss(weights, untied(configuration), tokens, mask).item()
        errors.append(abs(epoch.metadata["val_loss"] - exact) / exact)
    measured(
        epochs_compared=len(errors),
        heldout_error=max(errors),
        batches=-(-len(tokens) // MICRO_BATCH),
        ranks=record.identity["world_size"],
    )
