"""Is a step over several micro-batches the step over all of their sequences at once?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from falsifiers.subject import Batch, Instance

LEARNING_RATES = (1e-2, 3e-2, 2e-2, 1e-2)


def falsify_cycle_is_the_full_batch(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Micro-batches with unequal masks give the loss, the norm and the update of the whole."""
    import torch

    from falsifiers.errors import worst_relative_error
    from falsifiers.inputs import joined, roughen

    def build() -> Instance:
        built = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
        roughen(built, case.seed)
        return built

    parts, whole = build(), build()
    moved, expected = (
        {n: torch.zeros_like(p) for n, p in one.parameters().items()} for one in (parts, whole)
    )
    loss_errors, norm_errors, shares = [], [], []
    drawn = _targets(case)
    for cycle, (lr, targets) in enumerate(zip(LEARNING_RATES, drawn, strict=True)):
        batches = _with_targets(configuration, targets, case.length, 100 * case.seed + cycle)
        start = {n: p.clone() for n, p in parts.parameters().items()}
        whole.set_parameters(start)  # else Adam turns a rounded zero into a step, and steps add up
        ours = parts.train_step(batches, lr=lr)
        exact = whole.train_step(joined(batches), lr=lr)
        for one, total in ((parts, moved), (whole, expected)):
            for name, parameter in one.parameters().items():
                total[name] += parameter - start[name]
        loss_errors.append(abs(ours.train_loss - exact.train_loss) / exact.train_loss)
        norm_errors.append(abs(ours.grad_norm - exact.grad_norm) / exact.grad_norm)
        counts = [batch.targets for batch in batches]
        shares.append(max(counts) / min(counts))
    movement_error, worst = worst_relative_error(moved, expected)
    measured(
        loss_error=max(loss_errors),
        norm_error=max(norm_errors),
        movement_error=movement_error,
        worst_movement=worst,
        worst_cycle=str(max(zip(norm_errors, drawn, strict=True))[1]),
        least_inequality=min(shares),
    )


def _targets(case: Case) -> list[list[list[int]]]:
    """For each cycle and each micro-batch, how many targets of three sequences count."""
    from hypothesis import strategies as st

    from falsifiers.drawn_inputs import examples, integers

    count, full = case.micro_batches, case.length
    sequences = st.lists(integers(1, full), min_size=3, max_size=3)
    batches = st.lists(sequences, min_size=count, max_size=count)
    return examples(
        batches.filter(lambda drawn: max(map(sum, drawn)) >= 2 * min(map(sum, drawn))),
        len(LEARNING_RATES),
        case.seed,
        always=[[[full] * 3, *[[1, 1, 1]] * (count - 1)], [[1, 1, 1], *[[full] * 3] * (count - 1)]],
    )


def _with_targets(
    configuration: Configuration, targets: list[list[int]], length: int, seed: int
) -> list[Batch]:
    """Micro-batches of random tokens whose sequences end after so many targets."""
    import torch

    from falsifiers.inputs import random_tokens
    from falsifiers.subject import Batch

    return [
        Batch(
            random_tokens(configuration, len(ends), length + 1, 10 * seed + index),
            torch.arange(length)[None, :] < torch.tensor(ends)[:, None],
        )
        for index, ends in enumerate(targets)
    ]


def falsify_nothing_leaks_between_cycles(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Each cycle after the first has the oracle's norm of its own gradient and of no other."""
    from falsifiers.inputs import joined, roughen, unequal_micro_batches
    from falsifiers.reference.gradients import global_norm, loss_and_gradients

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed)
    norm_errors = []
    for cycle, lr in enumerate(LEARNING_RATES):
        seed = 1000 * case.seed + 100 * cycle
        batches = unequal_micro_batches(configuration, case.micro_batches, case.length, seed)
        whole = joined(batches).to(instance.device)
        weights = {n: p.clone() for n, p in instance.parameters().items()}
        _, exact = loss_and_gradients(weights, configuration, whole.tokens, whole.target_mask)
        norm = global_norm(exact)
        norm_errors.append(abs(instance.train_step(batches, lr=lr).grad_norm - norm) / norm)
    measured(first_error=norm_errors[0], later_error=max(norm_errors[1:]))


def falsify_cycle_is_one_clipped_step(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """A cycle moves each parameter by one AdamW update of the total, clipped once."""
    from falsifiers.errors import worst_relative_error
    from falsifiers.inputs import joined, roughen, unequal_micro_batches
    from falsifiers.reference import adamw
    from falsifiers.reference.gradients import loss_and_gradients

    settings = adamw.AdamWSettings(case.beta1, case.beta2, case.eps, case.decay)
    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed, case.roughness)
    state, errors, norms, norm_errors, misnumbered = None, [], [], [], 0
    for cycle, lr in enumerate(LEARNING_RATES):
        seed = 1000 * case.seed + 100 * cycle
        batches = unequal_micro_batches(configuration, case.micro_batches, case.length, seed)
        whole = joined(batches).to(instance.device)
        before = {n: p.double().clone() for n, p in instance.parameters().items()}
        state = adamw.initial_state(before) if state is None else state
        _, exact = loss_and_gradients(before, configuration, whole.tokens, whole.target_mask)
        clipped, norm = adamw.clip_by_global_norm(exact, case.clip)
        expected, state = adamw.step(before, clipped, state, settings, lr)
        metrics = instance.train_step(batches, lr=lr)
        misnumbered += metrics.step != cycle
        norms.append(norm)
        norm_errors.append(abs(metrics.grad_norm - norm) / norm)
        moved = {n: p.double() - before[n] for n, p in instance.parameters().items()}
        errors.append(worst_relative_error(moved, {n: expected[n] - before[n] for n in before}))
    worst = max(errors[1:])
    measured(
        first_update_error=errors[0][0],
        update_error=worst[0],
        worst_update=worst[1],
        norm_error=max(norm_errors),
        smallest_norm=min(norms),
        misnumbered=misnumbered,
    )


def falsify_loss_is_weighted_by_targets(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """The loss of a cycle is the oracle's over all targets, not the mean of micro-batch means."""
    from falsifiers.inputs import joined, roughen, unequal_micro_batches
    from falsifiers.reference.loss import mean_loss

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed, case.roughness)
    weights = {n: p.clone() for n, p in instance.parameters().items()}
    *batches, last = unequal_micro_batches(
        configuration, case.micro_batches, case.length, 1000 * case.seed
    )
    # Random micro-batches have nearly the same mean, and then a mean of means is right by chance.
    batches.append(_improbable(last.to(instance.device), weights, configuration))

    def exact(batch: Batch) -> float:
        placed = batch.to(instance.device)
        return mean_loss(weights, configuration, placed.tokens, placed.target_mask).item()

    weighted = exact(joined(batches))
    unweighted = sum(map(exact, batches)) / len(batches)
    loss = instance.train_step(batches).train_loss
    measured(
        loss_error=abs(loss - weighted) / weighted,
        mean_of_means_error=abs(unweighted - weighted) / weighted,
    )


def _improbable(batch: Batch, weights: Mapping[str, Tensor], configuration: Configuration) -> Batch:
    """The batch with one target a sequence, its last: the id that the model thinks least likely."""
    import torch

    from falsifiers.reference.model import logits
    from falsifiers.subject import Batch

    inputs = batch.tokens[:, :-1]
    least = logits(weights, configuration, inputs)[:, -1].argmin(-1, keepdim=True)
    mask = torch.zeros_like(inputs, dtype=torch.bool)
    mask[:, -1] = True
    return Batch(torch.cat([inputs, least], dim=1), mask).to("cpu")


def falsify_asking_for_gradients_leaves_nothing(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Asked twice, gradients are the same bits; a step after asking is one that nobody preceded."""
    from falsifiers.inputs import ragged_batch, roughen
    from falsifiers.training_state import differing, state_of

    def build() -> Instance:
        built = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
        roughen(built, case.seed)
        return built

    asked, alone = build(), build()
    batches = [ragged_batch(configuration, 2, case.length, case.seed + n) for n in range(3)]
    losses, found = zip(*(asked.loss_and_gradients(batches[0]) for _ in range(2)), strict=True)
    first = {name: gradient.clone() for name, gradient in found[0].items()}
    again = differing(first, found[1])
    ours, exact = asked.train_step(batches[1]), alone.train_step(batches[1])
    asked.loss_and_gradients(batches[0])
    later, without = asked.train_step(batches[2]), alone.train_step(batches[2])
    measured(
        gradients=len(first),
        differing_gradients=len(again),
        loss_difference=abs(losses[0] - losses[1]),
        norm_difference=max(
            abs(ours.grad_norm - exact.grad_norm), abs(later.grad_norm - without.grad_norm)
        ),
        differing_tensors=len(differing(state_of(asked), state_of(alone))),
    )
