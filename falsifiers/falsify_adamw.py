"""Does AdamW do with a gradient what its paper says, each term by itself?

Gradients are imposed, so that every term has a closed form; `falsify_optimizer` follows real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from falsifiers.imposed_gradients import ImposedGradients
    from falsifiers.subject import Instance

LEARNING_RATES = (1e-2, 3e-2, 5e-2, 2e-2)
"""They vary, so that a decay that does not follow the rate shows."""

DECAY_RATES = (0.5, 1.0, 0.25, 1.0)
"""Far above any real rate, so that decay alone is seen through float32."""

CONSTANT_STEPS = 12


def falsify_decay_is_decoupled(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Under gradients far below the weights, updates are AdamW's and not those of an L2 term."""
    from falsifiers.errors import relative_error, worst_relative_error
    from falsifiers.imposed_gradients import any_batch, drawn, of_norm
    from falsifiers.reference import adamw

    settings = adamw.AdamWSettings(case.beta1, case.beta2, case.eps, case.decay)
    coupled_settings = adamw.AdamWSettings(case.beta1, case.beta2, case.eps, 0.0)
    instance, imposed = _imposed(subject, case, configuration)
    instance.set_parameters(drawn(instance.parameters(), case.seed))
    state, coupled_state, worst, apart = None, None, (0.0, ""), []
    for step, lr in enumerate(LEARNING_RATES):
        before = _exact(instance.parameters())
        gradients = of_norm(drawn(before, 100 * case.seed + step + 1), case.norm)
        imposed.impose(gradients)
        gradients = {n: g.to(instance.device) for n, g in gradients.items()}
        with_l2 = {n: g + _decay(case, before[n]) * before[n] for n, g in gradients.items()}
        state = state or adamw.initial_state(before)
        coupled_state = coupled_state or adamw.initial_state(before)
        expected, state = adamw.step(before, gradients, state, settings, lr)
        coupled, coupled_state = adamw.step(before, with_l2, coupled_state, coupled_settings, lr)
        instance.train_step(any_batch(configuration, step), lr=lr)
        exact = {n: expected[n] - before[n] for n in before}
        moved = {n: p - before[n] for n, p in _exact(instance.parameters()).items()}
        worst = max(worst, worst_relative_error(moved, exact))
        matrices = [n for n, p in before.items() if p.ndim >= 2]
        apart += [relative_error(coupled[n] - before[n], exact[n]) for n in matrices]
    measured(update_error=worst[0], worst_update=worst[1], coupled_error=min(apart))


def falsify_second_moment_is_a_mean_of_squares(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Both moments are their recursions in float64, and the second one is never negative."""
    from falsifiers.errors import worst_relative_error
    from falsifiers.imposed_gradients import any_batch, drawn, of_norm
    from falsifiers.reference import adamw

    settings = adamw.AdamWSettings(case.beta1, case.beta2, case.eps, case.decay)
    instance, imposed = _imposed(subject, case, configuration)
    state = adamw.initial_state(_exact(instance.parameters()))
    elements = sum(p.numel() for p in instance.parameters().values())
    smallest, first_error, second_error, miscounted, below = 1.0, 0.0, 0.0, 0, 1.0
    for step, lr in enumerate(LEARNING_RATES):
        before = _exact(instance.parameters())
        gradients = of_norm(drawn(before, 100 * case.seed + step + 1), case.norm)
        imposed.impose(gradients)
        gradients = {n: g.to(instance.device) for n, g in gradients.items()}
        _, state = adamw.step(before, gradients, state, settings, lr)
        instance.train_step(any_batch(configuration, step), lr=lr)
        moments = instance.optimizer_state()
        first = {n: m.exp_avg for n, m in moments.items()}
        second = {n: m.exp_avg_sq for n, m in moments.items()}
        smallest = min(smallest, *(float(v.min()) for v in second.values()))
        below = min(below, sum(int((m < 0).sum()) for m in first.values()) / elements)
        first_error = max(first_error, worst_relative_error(first, state.exp_avg)[0])
        second_error = max(second_error, worst_relative_error(second, state.exp_avg_sq)[0])
        miscounted += sum(m.step != step + 1 for m in moments.values())
    measured(
        smallest_second_moment=smallest,
        first_moment_error=first_error,
        second_moment_error=second_error,
        negative_first_moments=below,
        miscounted=miscounted,
    )


def falsify_bias_correction_is_exact(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Under a constant gradient g every update from zero is ``-lr g / (|g| + eps)``, at each step.

    Corrected moments of a constant are g and g² whatever the step. Weights are set to zero before
    each one: nothing is then decayed, and the update is not rounded against a weight.
    """
    import torch

    from falsifiers.errors import worst_relative_error
    from falsifiers.imposed_gradients import any_batch, drawn

    instance, imposed = _imposed(subject, case, configuration)
    shapes = instance.parameters()
    generator = torch.Generator().manual_seed(case.seed)
    sizes = {
        n: 10.0 ** -(3.0 + 6.0 * torch.rand(p.shape, generator=generator))
        for n, p in sorted(shapes.items())
    }
    gradients = {n: v.sign() * sizes[n] for n, v in drawn(shapes, case.seed + 1).items()}
    zeros = {n: torch.zeros_like(p) for n, p in shapes.items()}
    imposed.impose(gradients)
    errors = []
    for step in range(CONSTANT_STEPS):
        lr = LEARNING_RATES[step % len(LEARNING_RATES)]
        instance.set_parameters(zeros)
        instance.train_step(any_batch(configuration, step), lr=lr)
        exact = {n: -lr * g.double() / (g.double().abs() + case.eps) for n, g in gradients.items()}
        moved = {n: p.cpu() for n, p in instance.parameters().items()}
        errors.append(worst_relative_error(moved, exact))
    measured(first_error=errors[0][0], later_error=max(errors[1:])[0], worst_update=max(errors)[1])


def falsify_extreme_gradients_stay_finite(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Whatever float32 holds may be a gradient: the step is taken, and moves what it should."""
    import torch

    from falsifiers.imposed_gradients import any_batch, drawn
    from falsifiers.reference import adamw
    from falsifiers.subject import SubjectRefused

    settings = adamw.AdamWSettings(case.beta1, case.beta2, case.eps, case.decay)
    instance, imposed = _imposed(subject, case, configuration)
    zeros = {n: torch.zeros_like(p) for n, p in instance.parameters().items()}
    start = _exact(zeros)
    state = adamw.initial_state(start)
    refused, not_finite, error = 0, 0, 0.0
    for step, lr in enumerate(LEARNING_RATES[:3]):
        signs = drawn(zeros, 100 * case.seed + step)
        # No zero among them, or the norm, and with it a subnormal coefficient, differs by step.
        gradients = {n: torch.where(v < 0, -1.0, 1.0) * case.magnitude for n, v in signs.items()}
        imposed.impose(gradients)
        placed = {n: g.to(instance.device) for n, g in gradients.items()}
        clipped, _ = adamw.clip_by_global_norm(placed, case.clip)
        expected, state = adamw.step(start, clipped, state, settings, lr)
        instance.set_parameters(zeros)
        try:
            instance.train_step(any_batch(configuration, step), lr=lr)
        except SubjectRefused:
            refused += 1
        moments = instance.optimizer_state().values()
        held = [*instance.parameters().values(), *(t for m in moments for t in _both(m))]
        not_finite += sum(int((~t.isfinite()).sum()) for t in held)
        parameters = _exact(instance.parameters())
        error = max(error, *(float((parameters[n] - expected[n]).abs().max()) / lr for n in start))
    measured(refused=refused, not_finite=not_finite, update_error=error)


def falsify_zero_gradients_only_decay(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Without a gradient matrices shrink by ``1 - lr decay`` a step, and nothing else moves."""
    import math

    import torch

    from falsifiers.errors import worst_relative_error
    from falsifiers.imposed_gradients import any_batch, drawn

    instance, imposed = _imposed(subject, case, configuration)
    instance.set_parameters(drawn(instance.parameters(), case.seed))
    start = {n: p.clone() for n, p in instance.parameters().items()}
    imposed.impose({n: torch.zeros_like(p) for n, p in start.items()})
    for step, lr in enumerate(DECAY_RATES):
        instance.train_step(any_batch(configuration, step), lr=lr)
    now = instance.parameters()
    kept = math.prod(1 - lr * case.decay for lr in DECAY_RATES)
    matrices = [n for n, p in start.items() if p.ndim >= 2]
    moved = {n: now[n].double() - start[n].double() for n in matrices}
    exact = {n: (kept - 1) * start[n].double() for n in matrices}
    moments = [t for m in instance.optimizer_state().values() for t in _both(m)]
    error, worst = worst_relative_error(moved, exact)
    measured(
        decay_error=error,
        worst_decay=worst,
        moved_vectors=sum(int((now[n] != start[n]).sum()) for n in start.keys() - set(matrices)),
        vectors=len(start) - len(matrices),
        moments_not_zero=sum(int((t != 0).sum()) for t in moments),
    )


def _imposed(
    subject: Subject, case: Case, configuration: Configuration
) -> tuple[Instance, ImposedGradients]:
    from falsifiers.imposed_gradients import ImposedGradients

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    return instance, ImposedGradients(instance)


def _exact(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: p.double().clone() for n, p in parameters.items()}


def _decay(case: Case, parameter: Tensor) -> float:
    return float(case.decay) if parameter.ndim >= 2 else 0.0


def _both(moments: object) -> tuple[Tensor, Tensor]:
    from falsifiers.subject_parts import Moments

    assert isinstance(moments, Moments)
    return moments.exp_avg, moments.exp_avg_sq
