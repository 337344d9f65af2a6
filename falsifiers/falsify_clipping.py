"""Is a gradient clipped by its L2 norm, over everything, and to the limit?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from falsifiers.subject import Batch

STEPS = 100


def falsify_coefficient_is_limit_over_norm(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """The first moment after one step is ``(1 - beta1) · min(1, limit / norm)`` of the gradient."""
    error, coefficient, norm = _coefficient(subject, case, configuration, case.norm)
    measured(coefficient=coefficient, direction_error=error, reported_norm=norm)


def falsify_coefficient_falls_with_the_norm(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Seven times the norm is a seventh of the coefficient: the sum of squares has a root."""
    import math

    _, low, low_norm = _coefficient(subject, case, configuration, case.norm)
    _, high, high_norm = _coefficient(subject, case, configuration, case.norm * case.factor)
    measured(
        coefficient_exponent=math.log(high / low) / math.log(case.factor),
        norm_exponent=math.log(high_norm / low_norm) / math.log(case.factor),
    )


def falsify_training_follows_an_independent_loop(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """After 100 clipped steps the loss is that of torch's own clipping and AdamW in float64."""
    from falsifiers.inputs import roughen

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed, case.roughness)
    start = {n: p.cpu().clone() for n, p in instance.parameters().items()}
    batches = _batches(configuration, case.seed)
    exact, clipped = _independent(start, configuration, batches, case)
    losses = [
        instance.train_step(batches[s % 4], lr=_rate(case, s)).train_loss for s in range(STEPS)
    ]
    errors = [abs(a - b) / b for a, b in zip(losses, exact, strict=True)]
    measured(
        final_error=errors[-1],
        largest_error=max(errors),
        loss_fell=exact[0] - exact[-1],
        clipped_steps=clipped,
    )


def _coefficient(
    subject: Subject, case: Case, configuration: Configuration, norm: float
) -> tuple[float, float, float]:
    """Largest relative error of a tensor's moment, the coefficient, and the norm reported."""
    from falsifiers.errors import worst_relative_error
    from falsifiers.imposed_gradients import ImposedGradients, any_batch, drawn, of_norm

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    imposed = ImposedGradients(instance)
    gradients = of_norm(drawn(instance.parameters(), case.seed), norm)
    imposed.impose(gradients)
    reported = instance.train_step(any_batch(configuration, case.seed)).grad_norm
    moments = instance.optimizer_state()
    found = {n: m.exp_avg.double().cpu() / (1 - case.beta1) for n, m in moments.items()}
    product = sum(float((found[n] * g).sum()) for n, g in gradients.items())
    coefficient = product / sum(float(g.double().square().sum()) for g in gradients.values())
    exact = {n: g.double() * min(1.0, case.clip / norm) for n, g in gradients.items()}
    return worst_relative_error(found, exact)[0], coefficient, reported


def _batches(configuration: Configuration, seed: int) -> list[Batch]:
    from falsifiers.inputs import random_batch

    return [random_batch(configuration, 2, 16, 10 * seed + number) for number in range(4)]


def _rate(case: Case, step: int) -> float:
    return float(case.lr) * (1 - step / STEPS)


def _independent(
    start: dict[str, Tensor], configuration: Configuration, batches: list[Batch], case: Case
) -> tuple[list[float], int]:
    """Losses of 100 steps of the oracle under torch's own tools, and how many were clipped."""
    import json
    from pathlib import Path

    import torch
    from torch import nn

    from falsifiers.made_once import made_once
    from falsifiers.reference.loss import mean_loss

    def make(folder: Path) -> None:
        weights = {n: nn.Parameter(p.double()) for n, p in start.items()}
        groups = [
            {"params": [p for p in weights.values() if p.ndim >= 2], "weight_decay": case.decay},
            {"params": [p for p in weights.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, betas=(case.beta1, case.beta2), eps=case.eps)
        losses, clipped = [], 0
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = _rate(case, step)
            optimizer.zero_grad()
            loss = mean_loss(weights, configuration, batches[step % 4].tokens)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(list(weights.values()), case.clip)
            optimizer.step()
            losses.append(loss.item())
            clipped += bool(norm > case.clip)
        (folder / "losses.json").write_text(json.dumps([losses, clipped]))

    sums = [p.double().sum().item() for p in start.values()]
    folder = made_once("clipped-loop", (sums, dict(configuration), case.id), make)
    losses, clipped = json.loads((folder / "losses.json").read_text())
    return losses, clipped
