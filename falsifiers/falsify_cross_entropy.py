"""Is the fused loss of a linear head the negative log-likelihood, with the gradients of it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Measured, Subject

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from falsifiers.subject_parts import Operators


def falsify_loss_is_not_negative(subject: Subject, case: Case, measured: Measured) -> None:
    """From guessing to certainty no row has a loss below zero, not even by rounding."""
    import torch

    generator = torch.Generator().manual_seed(case.seed)
    weight = torch.randn(case.vocab, case.width, generator=generator)
    targets = torch.randint(case.vocab, (case.rows,), generator=generator)
    targets[-2], targets[-1] = 0, case.vocab - 1
    # Among many ids one would lie along a short target, and outweigh it at any certainty.
    longest = weight.norm(dim=-1).max()
    weight[targets] *= 2 * longest / weight[targets].norm(dim=-1, keepdim=True)
    aligned = weight[targets] / weight[targets].square().sum(-1, keepdim=True)
    hidden = torch.linspace(0.0, case.certainty, case.rows)[:, None] * aligned
    losses = _row_by_row(
        subject.operators(),
        hidden.to(case.device, getattr(torch, case.dtype)),
        weight.to(case.device),
        targets.to(case.device),
    )
    measured(
        least_loss=losses.min().item(),
        guess_loss=losses[0].item(),
        near_zero=int((losses.abs() < 1e-3).sum()),
    )


def falsify_log_probabilities_are_not_positive(
    subject: Subject, case: Case, measured: Measured
) -> None:
    """Each id has a probability in [0, 1], and together they have one, in loss and gradient."""
    import torch

    generator = torch.Generator().manual_seed(case.seed)
    logits = case.spread * torch.randn(1, case.vocab, generator=generator)
    logits = logits.to(case.device, getattr(torch, case.dtype))
    operators, every = subject.operators(), torch.arange(case.vocab, device=case.device)
    identity = torch.eye(case.vocab, device=case.device)
    repeated = logits.expand(case.vocab, -1)
    log_probabilities = -_row_by_row(operators, repeated, identity, every)
    _, gradient = _loss_and_logit_gradient(operators, logits, every[-1:])
    probabilities = gradient[0].clone()
    probabilities[-1] += 1.0
    exact = logits.double()[0].softmax(-1)
    measured(
        largest_log_probability=log_probabilities.max().item(),
        mass_error=abs(log_probabilities.exp().sum().item() - 1.0),
        least_probability=probabilities.min().item(),
        largest_probability=probabilities.max().item(),
        gradient_sum=abs(gradient.sum().item()),
        gradient_error=(probabilities - exact).abs().max().item(),
    )


def falsify_extreme_logits_stay_finite(subject: Subject, case: Case, measured: Measured) -> None:
    """Logits near the largest float32 give the float64 loss and gradients, all of them finite."""
    import torch

    operators, dtype = subject.operators(), getattr(torch, case.dtype)
    not_finite, loss_errors, largest, gradient_errors = 0, [], 0.0, []
    for row, target in _extreme_rows(case.vocab, case.largest):
        logits, targets = row.to(case.device, dtype), torch.tensor([target], device=case.device)
        loss, gradient = _loss_and_logit_gradient(operators, logits, targets)
        exact_loss, exact_gradient = _exact_loss_and_logit_gradient(logits, targets)
        not_finite += int((~torch.isfinite(torch.tensor(loss))).sum())
        not_finite += int((~torch.isfinite(gradient)).sum())
        loss_errors.append(abs(loss - exact_loss) / max(1.0, exact_loss))
        largest = max(largest, gradient.abs().max().item())
        gradient_errors.append((gradient - exact_gradient).abs().max().item())
    measured(
        not_finite=not_finite,
        loss_error=max(loss_errors),
        largest_gradient=largest,
        gradient_error=max(gradient_errors),
    )


def _extreme_rows(vocabulary: int, largest: float) -> list[tuple[Tensor, int]]:
    """Logits ``[1, V]`` and a target.

    Losses stay in float32's range: opposite signs meet at half of `largest`, or off the target.
    """
    import torch

    def row(fill: float, **at: float) -> Tensor:
        logits = torch.full((1, vocabulary), fill)
        for place, value in at.items():
            logits[0, {"first": 0, "middle": vocabulary // 2, "last": -1}[place]] = value
        return logits

    half, last = largest / 2, vocabulary - 1
    return [
        (row(-largest), last),
        (row(largest), 0),
        (row(half, last=-half), last),
        (row(-half, first=half), 0),
        (row(0.0, last=-largest), last),
        (row(-largest, middle=0.0), vocabulary // 2),
        (row(-largest, first=0.0, last=0.0), last),
        (row(-largest, last=largest), last),
    ]


def falsify_common_offset_costs_nothing(subject: Subject, case: Case, measured: Measured) -> None:
    """What all logits have in common changes neither loss nor gradient, nor their accuracy."""
    import torch

    generator = torch.Generator().manual_seed(case.seed)
    spread = torch.randn(case.rows, case.vocab, generator=generator)
    logits = (case.offset + spread).to(case.device, getattr(torch, case.dtype))
    targets = torch.randint(case.vocab, (case.rows,), generator=generator).to(case.device)
    operators = subject.operators()
    loss_errors, sums, gradient_errors = [], [], []
    for i in range(case.rows):
        row, target = logits[i : i + 1], targets[i : i + 1]
        loss, gradient = _loss_and_logit_gradient(operators, row, target)
        exact_loss, exact_gradient = _exact_loss_and_logit_gradient(row, target)
        loss_errors.append(abs(loss - exact_loss) / max(1.0, exact_loss))
        sums.append(abs(gradient.sum().item()))
        gradient_errors.append((gradient - exact_gradient).abs().max().item())
    measured(
        loss_error=max(loss_errors),
        gradient_sum=max(sums),
        gradient_error=max(gradient_errors),
        smallest_logit=logits.double().abs().min().item(),
    )


def _exact_loss_and_logit_gradient(logits: Tensor, targets: Tensor) -> tuple[float, Tensor]:
    """Both in float64, of the logits as they are rounded.

    The largest is subtracted first, exactly: at 3e38 float64 would round ln V away as well.
    """
    import torch

    from falsifiers.reference.operators import token_losses

    wide = logits.double()
    shifted = (wide - wide.amax(-1, keepdim=True)).requires_grad_()
    loss = token_losses(shifted, targets).sum()
    (gradient,) = torch.autograd.grad(loss, shifted)
    return loss.item(), gradient


def falsify_masked_rows_do_nothing(subject: Subject, case: Case, measured: Measured) -> None:
    """Rows of weight zero change neither loss nor gradient, whatever finite logits they have."""
    import torch

    generator = torch.Generator().manual_seed(case.seed)
    logits = torch.randn(case.rows, case.vocab, generator=generator)
    targets = torch.randint(case.vocab, (case.rows,), generator=generator)
    masked = torch.arange(case.rows) % 2 == 1
    logits[masked] = case.largest
    logits[masked, targets[masked]] = -case.largest
    logits = logits.to(case.device, getattr(torch, case.dtype))
    targets, masked = targets.to(case.device), masked.to(case.device)
    operators = subject.operators()
    loss, gradient = _loss_and_logit_gradient(operators, logits, targets, (~masked).float())
    kept, kept_gradient = _loss_and_logit_gradient(operators, logits[~masked], targets[~masked])
    nothing, no_gradient = _loss_and_logit_gradient(
        operators, logits, targets, torch.zeros(case.rows, device=case.device)
    )
    measured(
        loss_error=abs(loss - kept) / kept,
        gradient_error=(gradient[~masked] - kept_gradient).abs().max().item(),
        masked_gradient=gradient[masked].abs().max().item(),
        all_masked_loss=nothing,
        all_masked_gradient=no_gradient.abs().max().item(),
    )


def falsify_fused_is_log_softmax_and_nll(subject: Subject, case: Case, measured: Measured) -> None:
    """On logits that any dtype holds exactly, the loss is log-softmax and NLL, and adds by rows."""
    import torch
    from torch.nn import functional

    from falsifiers.errors import relative_error

    generator = torch.Generator().manual_seed(case.seed)
    # Products and sums of small multiples of powers of two: no product or sum is ever rounded.
    hidden = torch.randint(-2, 3, (case.rows, case.width), generator=generator) / 2.0
    weight = torch.randint(-4, 5, (case.vocab, case.width), generator=generator) / 4.0
    targets = _spread_targets(case, generator)
    rows = 0.25 + torch.arange(case.rows) / 4.0
    hidden = hidden.to(case.device, getattr(torch, case.dtype)).requires_grad_()
    weight, targets, rows = (x.to(case.device) for x in (weight, targets, rows))
    weight.requires_grad_()
    operators = subject.operators()
    loss = operators.linear_cross_entropy(hidden, weight, targets, rows)
    gradients = torch.autograd.grad(loss, [hidden, weight])
    wide = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    log_probabilities = functional.log_softmax(wide[0] @ wide[1].T, -1)
    losses = functional.nll_loss(log_probabilities, targets, reduction="none") * rows
    exact = torch.autograd.grad(losses.sum(), wide)
    parts = [slice(0, 1), slice(1, case.rows)]
    split = sum(
        operators.linear_cross_entropy(hidden[s], weight, targets[s], rows[s]).item() for s in parts
    )
    measured(
        loss_error=relative_error(loss, losses.sum()),
        split_error=abs(split - loss.item()) / abs(losses.sum().item()),
        hidden_gradient_error=relative_error(gradients[0], exact[0]),
        weight_gradient_error=relative_error(gradients[1], exact[1]),
    )


def falsify_cross_entropy_matches_float64(subject: Subject, case: Case, measured: Measured) -> None:
    """Loss and gradients are the oracle's with unequal row weights and a gradient other than 1."""
    import torch

    from falsifiers.errors import relative_error
    from falsifiers.reference.operators import token_losses

    generator = torch.Generator().manual_seed(case.seed)
    dtype = getattr(torch, case.dtype)
    hidden = torch.randn(case.rows, case.width, generator=generator).to(case.device, dtype)
    weight = torch.randn(case.vocab, case.width, generator=generator).to(case.device)
    targets = _spread_targets(case, generator).to(case.device)
    rows = 2.0 * torch.rand(case.rows, generator=generator)
    rows[1::3] = 0.0
    rows = rows.to(case.device)
    upstream = torch.tensor(case.upstream, device=case.device)

    def plain(of: torch.dtype) -> list[Tensor]:
        leaves = [x.to(of).requires_grad_() for x in (hidden, weight)]
        loss = (token_losses(leaves[0] @ leaves[1].T, targets) * rows).sum()
        return [loss.detach(), *torch.autograd.grad(loss, leaves, upstream.to(loss.dtype))]

    leaves = [x.clone().requires_grad_() for x in (hidden, weight)]
    loss = subject.operators().linear_cross_entropy(leaves[0], leaves[1], targets, rows)
    ours = [loss.detach(), *torch.autograd.grad(loss, leaves, upstream)]
    exact, eager = plain(torch.float64), plain(dtype)
    errors = [relative_error(value, right) for value, right in zip(ours, exact, strict=True)]
    plain_errors = [relative_error(value, right) for value, right in zip(eager, exact, strict=True)]
    dtypes = [str(x.dtype).removeprefix("torch.") for x in ours]
    measured(
        loss_error=errors[0],
        hidden_gradient_error=errors[1],
        weight_gradient_error=errors[2],
        plain_loss_error=plain_errors[0],
        plain_hidden_gradient_error=plain_errors[1],
        plain_weight_gradient_error=plain_errors[2],
        hidden_gradient_dtype=dtypes[1],
        other_dtypes=f"{dtypes[0]},{dtypes[2]}",
    )


def falsify_dominant_logit_ends_the_loss(subject: Subject, case: Case, measured: Measured) -> None:
    """As the right logit grows the loss falls to zero along ln(1 + (V - 1) exp(-margin))."""
    import math

    import torch

    operators, dtype = subject.operators(), getattr(torch, case.dtype)
    margins = [0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 32.0, 64.0, 128.0]
    errors, gradient_errors, rises = [], [], 0
    for target in (0, case.vocab - 1):
        before = math.inf
        for margin in margins:
            logits = torch.zeros(1, case.vocab, device=case.device, dtype=dtype)
            logits[0, target] = margin
            targets = torch.tensor([target], device=case.device)
            loss, gradient = _loss_and_logit_gradient(operators, logits, targets)
            others = (case.vocab - 1) * math.exp(-margin)
            errors.append(abs(loss - math.log1p(others)) / max(margin, math.log(case.vocab)))
            expected = torch.full_like(gradient, math.exp(-margin) / (1.0 + others))
            expected[0, target] = -others / (1.0 + others)
            gradient_errors.append((gradient - expected).abs().max().item())
            rises += loss > before
            before = loss
        last = max(loss, gradient.abs().max().item())
    measured(
        closed_form_error=max(errors),
        gradient_error=max(gradient_errors),
        rises=rises,
        dominated=last,
    )


def _spread_targets(case: Case, generator: Generator) -> Tensor:
    """Random ids; among them the first, the last and, if there is one, the first above 16 bits."""
    import torch

    targets = torch.randint(case.vocab, (case.rows,), generator=generator)
    targets[0], targets[-1] = 0, case.vocab - 1
    if case.rows > 2 and case.vocab > 2**16:
        targets[2] = 2**16
    return targets


def _row_by_row(operators: Operators, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Losses ``[N]`` in float64, each of a call of its own: the operator returns sums only."""
    import torch

    rows = [slice(i, i + 1) for i in range(len(targets))]
    losses = [operators.linear_cross_entropy(hidden[i], weight, targets[i]) for i in rows]
    return torch.stack(losses).detach().double()


def _loss_and_logit_gradient(
    operators: Operators, logits: Tensor, targets: Tensor, row_weights: Tensor | None = None
) -> tuple[float, Tensor]:
    """The loss of given logits, and its gradient ``[N, V]``.

    The logits are the hidden states and the head is an identity: products with one and sums with
    zero are exact in any dtype.
    """
    import torch

    hidden = logits.detach().clone().requires_grad_()
    identity = torch.eye(logits.shape[-1], device=logits.device)
    loss = operators.linear_cross_entropy(hidden, identity, targets, row_weights)
    (gradient,) = torch.autograd.grad(loss, hidden)
    return loss.item(), gradient.double()
