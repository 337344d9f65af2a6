"""Is the learning rate of each step that of the schedule, counted from 0?"""

from __future__ import annotations

import itertools

from falsifiers.fixtures import Case, Configuration, Measured, Subject


def falsify_rates_are_the_closed_form(subject: Subject, case: Case, measured: Measured) -> None:
    """Every planned step of a table of schedules has the rate of the formula."""
    import math

    errors, rates = [], []
    for step in range(case.total):
        if step < case.warm_up:
            exact = case.peak * step / case.warm_up
        else:
            progress = (step - case.warm_up) / (case.total - case.warm_up)
            exact = 0.5 * case.peak * (1 + math.cos(math.pi * progress))
        rate = subject.learning_rate(step, peak=case.peak, warm_up=case.warm_up, total=case.total)
        errors.append(abs(rate - exact) / case.peak)
        rates.append(rate)
    worst = max(range(case.total), key=errors.__getitem__)
    measured(rate_error=errors[worst], worst_step=worst, highest_rate=max(rates))


def falsify_landmarks_of_the_schedule(subject: Subject, case: Case, measured: Measured) -> None:
    """Nothing at step 0 of a warm-up, the peak at its end, half half-way, nothing at the end."""

    def rate(step: int) -> float:
        return subject.learning_rate(step, peak=case.peak, warm_up=case.warm_up, total=case.total)

    rates = [rate(step) for step in range(case.total + 1)]
    rising, falling = rates[: case.warm_up + 1], rates[case.warm_up :]
    measured(
        first_rate=rate(0),
        rate_at_warm_up=rate(case.warm_up),
        half_way_rate=rate((case.warm_up + case.total) // 2),
        rate_at_end=rate(case.total),
        last_planned_rate=rate(case.total - 1),
        not_rising=sum(a >= b for a, b in itertools.pairwise(rising)),
        not_falling=sum(a <= b for a, b in itertools.pairwise(falling)),
    )


def falsify_warm_up_has_to_fit(subject: Subject, case: Case, measured: Measured) -> None:
    """A warm-up as long as the run is accepted, a longer one refused, with both numbers named."""
    from falsifiers.subject import SubjectRefused

    def message(warm_up: int) -> str:
        try:
            subject.learning_rate(0, peak=case.peak, warm_up=warm_up, total=case.total)
        except SubjectRefused as refusal:
            return str(refusal)
        return ""

    longer = message(case.total + 1)
    measured(
        longer_refused=bool(longer),
        numbers_named=sum(str(n) in longer for n in (case.total + 1, case.total)),
        whole_refused=bool(message(case.total)),
        none_refused=bool(message(0)),
    )


def falsify_first_step_moves_nothing(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Taken at its scheduled rate, step 0 of a warm-up moves no weight and step 1 moves all."""
    from falsifiers.inputs import random_batch

    def moved(step: int) -> int:
        before = {n: p.clone() for n, p in instance.parameters().items()}
        lr = subject.learning_rate(step, peak=case.peak, warm_up=case.warm_up, total=case.total)
        instance.train_step(random_batch(configuration, 2, 16, step), lr=lr)
        return sum(int((p != before[n]).any()) for n, p in instance.parameters().items())

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    tensors = len(instance.parameters())
    measured(moved_first=moved(0), unmoved_second=tensors - moved(1))
