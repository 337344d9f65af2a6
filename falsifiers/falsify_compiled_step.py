"""Is the fast path of a training step the plain one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from falsifiers.subject import Batch, Instance, StepMetrics

LEARNING_RATES = (1e-2, 3e-2, 2e-2)
"""They vary, as the batches do, so that a captured step that replays old inputs shows."""


def _build(subject: Subject, case: Case, configuration: Configuration, compiled: bool) -> Instance:
    from falsifiers.inputs import roughen
    from falsifiers.subject import Execution

    instance = subject.build(
        configuration,
        device=case.device,
        dtype=case.dtype,
        seed=case.seed,
        execution=Execution(compiled, deterministic=compiled and case.deterministic),
    )
    roughen(instance, case.seed, case.roughness)
    return instance


def _cycles(case: Case, configuration: Configuration) -> list[list[Batch]]:
    """The micro-batches of each step, all of one shape and without masks, as captures want them."""
    from falsifiers.inputs import random_batch

    shape, first = (case.batch, case.length), 1000 * case.seed
    return [
        [
            random_batch(configuration, *shape, first + 10 * step + index)
            for index in range(case.micro_batches)
        ]
        for step in range(len(LEARNING_RATES))
    ]


def _train(
    instance: Instance, cycles: list[list[Batch]]
) -> tuple[list[StepMetrics], dict[str, Tensor]]:
    """The metrics of every step, and how far each parameter moved over all of them."""
    before = {n: p.double().clone() for n, p in instance.parameters().items()}
    pairs = zip(cycles, LEARNING_RATES, strict=True)
    metrics = [instance.train_step(batches, lr=lr) for batches, lr in pairs]
    return metrics, {n: p.double() - before[n] for n, p in instance.parameters().items()}


def falsify_compiled_step_is_the_eager_step(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """In float32 gradients, losses, norms and movements of the two agree within rounding."""
    from falsifiers.errors import worst_relative_error
    from falsifiers.process_settings import nothing_reproducible

    cycles = _cycles(case, configuration)
    with nothing_reproducible():
        compiled = _build(subject, case, configuration, compiled=True)
        gradients = compiled.loss_and_gradients(cycles[0][0])[1]
        ours, moved = _train(compiled, cycles)
    eager = _build(subject, case, configuration, compiled=False)
    exact = eager.loss_and_gradients(cycles[0][0])[1]
    theirs, expected = _train(eager, cycles)
    gradient_error, worst_gradient = worst_relative_error(gradients, exact)
    movement_error, worst_movement = worst_relative_error(moved, expected)
    pairs = list(zip(ours, theirs, strict=True))
    measured(
        gradient_error=gradient_error,
        worst_gradient=worst_gradient,
        loss_error=max(abs(a.train_loss - b.train_loss) / b.train_loss for a, b in pairs),
        norm_error=max(abs(a.grad_norm - b.grad_norm) / b.grad_norm for a, b in pairs),
        movement_error=movement_error,
        worst_movement=worst_movement,
        misreported=sum((a.step, a.lr) != (b.step, b.lr) for a, b in pairs),
    )


def falsify_compiled_step_errs_no_more_than_eager(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """In the training dtype both are off the float64 oracle, the compiled one at most twice."""
    import math

    import torch

    from falsifiers.errors import relative_error
    from falsifiers.process_settings import nothing_reproducible
    from falsifiers.reference import adamw
    from falsifiers.reference.gradients import loss_and_gradients

    settings = adamw.AdamWSettings(case.beta1, case.beta2, case.eps, case.decay)
    cycles, losses = _cycles(case, configuration), []
    eager = _build(subject, case, configuration, compiled=False)
    weights = {n: p.double().clone() for n, p in eager.parameters().items()}
    start, state = weights, adamw.initial_state(weights)
    for batches, lr in zip(cycles, LEARNING_RATES, strict=True):
        tokens = torch.cat([batch.tokens for batch in batches]).to(eager.device)
        loss, gradients = loss_and_gradients(weights, configuration, tokens)
        clipped, _ = adamw.clip_by_global_norm(gradients, case.clip)
        weights, state = adamw.step(weights, clipped, state, settings, lr)
        losses.append(loss)

    names = sorted(weights)
    exact = torch.cat([(weights[n] - start[n]).flatten() for n in names])

    def errors(instance: Instance) -> tuple[float, float]:
        metrics, moved = _train(instance, cycles)
        pairs = zip(metrics, losses, strict=True)
        squares = [((m.train_loss - loss) / loss) ** 2 for m, loss in pairs]
        movement = torch.cat([moved[n].flatten() for n in names])
        return math.sqrt(sum(squares) / len(squares)), relative_error(movement, exact)

    eager_loss_error, eager_movement_error = errors(eager)
    with nothing_reproducible():
        compiled = _build(subject, case, configuration, compiled=True)
        compiled_loss_error, compiled_movement_error = errors(compiled)
    measured(
        compiled_movement_error=compiled_movement_error,
        eager_movement_error=eager_movement_error,
        compiled_loss_error=compiled_loss_error,
        eager_loss_error=eager_loss_error,
    )


def falsify_eager_is_not_compiled(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """The plain way of execution hands the compiler no code; a compiled function is counted."""
    import torch
    from torch._dynamo.utils import counters

    from falsifiers.inputs import random_batch
    from falsifiers.training_state import small

    def compiled_frames() -> int:
        return counters["frames"]["total"]

    configuration = small(configuration, case.vocabulary, case.layers)
    begun = compiled_frames()
    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    batch = random_batch(configuration, 2, 8, case.seed)
    instance.train_step(batch)
    instance.evaluate([batch])
    ended = compiled_frames()
    torch.compile(torch.neg, backend="eager")(torch.ones(3))
    measured(frames=ended - begun, frames_of_the_control=compiled_frames() - ended)
