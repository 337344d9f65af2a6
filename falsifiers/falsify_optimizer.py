"""Is a training step clipping by the global norm, then AdamW, and nothing else?"""

from __future__ import annotations

from falsifiers.fixtures import Case, Configuration, Measured, Subject

LEARNING_RATES = (1e-2, 3e-2, 2e-2, 1e-2, 5e-2, 3e-2, 1e-2, 2e-2, 3e-2, 1e-2, 2e-2, 1e-2)
"""They vary, so that a rate that is ignored, or taken one step late, shows."""


def falsify_update_is_adamw(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Each parameter moves by the oracle's clipped AdamW update, at the rate that was asked for."""
    from falsifiers.errors import worst_relative_error
    from falsifiers.inputs import ragged_batch, roughen
    from falsifiers.reference import adamw
    from falsifiers.reference.gradients import loss_and_gradients

    settings = adamw.AdamWSettings(case.beta1, case.beta2, case.eps, case.decay)
    instance = subject.build(
        configuration, device=case.device, dtype=case.dtype, seed=case.seed, lr=5e-3
    )
    roughen(instance, case.seed, case.roughness)
    state, errors, norms, wrong = None, [], [], 0
    for step, lr in enumerate(LEARNING_RATES):
        batch = ragged_batch(configuration, 6, 64, 10 * case.seed + step).to(instance.device)
        before = {n: p.double().clone() for n, p in instance.parameters().items()}
        state = adamw.initial_state(before) if state is None else state
        _, gradients = loss_and_gradients(before, configuration, batch.tokens, batch.target_mask)
        clipped, norm = adamw.clip_by_global_norm(gradients, case.clip)
        expected, state = adamw.step(before, clipped, state, settings, lr)
        metrics = instance.train_step(batch, lr=lr)
        wrong += metrics.step != step or metrics.lr != lr
        moved = {n: p.double() - before[n] for n, p in instance.parameters().items()}
        errors.append(worst_relative_error(moved, {n: expected[n] - before[n] for n in before}))
        norms.append(norm)
    worst = max(errors[1:])
    measured(
        first_update_error=errors[0][0],
        update_error=worst[0],
        worst_update=worst[1],
        smallest_norm=min(norms),
        largest_norm=max(norms),
        wrongly_reported=wrong,
    )
