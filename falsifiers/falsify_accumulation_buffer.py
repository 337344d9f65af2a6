"""Does what many small micro-batches add to a gradient get lost on the way?"""

from __future__ import annotations

from falsifiers.fixtures import Case, Configuration, Measured, Subject


def falsify_small_gradients_add_up(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """One large and many small gradients add up to their float64 sum, seen in the first moment.

    Each small one is below half a unit in the last place of a 16-bit sum: such a buffer would end
    where it began.
    """
    from falsifiers.errors import worst_relative_error
    from falsifiers.imposed_gradients import ImposedGradients, any_batch, drawn, of_norm

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    imposed = ImposedGradients(instance)
    large = of_norm(drawn(instance.parameters(), case.seed), case.norm)
    # Of one sign with the large one, so that what is lost would have added up.
    small = {n: g * case.share for n, g in large.items()}
    imposed.impose(large, *([small] * case.small))
    batches = [any_batch(configuration, number) for number in range(1 + case.small)]
    instance.train_step(batches)
    found = {
        n: m.exp_avg.double().cpu() / (1 - case.beta1)
        for n, m in instance.optimizer_state().items()
    }
    exact = {n: g.double() + case.small * small[n].double() for n, g in large.items()}
    error, worst = worst_relative_error(found, exact)
    measured(
        sum_error=error,
        worst_sum=worst,
        lost=case.small * case.share / (1 + case.small * case.share),
    )
