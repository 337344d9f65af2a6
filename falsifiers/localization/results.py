"""What an instance returned, where the operators that it traced are right: the paths around them.

The yardstick is the instance's own trace: what it computes from the same weights operator by
operator is as far from float64 as its noise goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from falsifiers.errors import relative_error
from falsifiers.localization.findings import UNKNOWN, Bounds, Finding, Look, misfit
from falsifiers.localization.shapes_of_error import guesses, places_in_words
from falsifiers.reference import operators as exact_operators
from falsifiers.reference.gradients import loss_and_gradients
from falsifiers.reference.model import logits as exact_logits
from falsifiers.subject import Batch, Configuration, OperatorRecord

Tensors = Mapping[str, Tensor]
_PROBED = 50_000_000
"""On a CPU, parameters of a model that are still tried one by one."""
_STEP = 1e-4


def judge_logits(
    ours: Tensor,
    tokens: Tensor,
    weights: Tensors,
    asked: Configuration,
    records: Sequence[OperatorRecord],
    dtype: str,
    bounds: Bounds,
) -> Look:
    """The logits against the oracle's, in units of how far the traced ones are from it."""
    exact = exact_logits(weights, asked, tokens)
    least = _noise(dtype, asked)
    if records:
        hidden = records[-1].inputs["hidden"].double()
        head = records[-1].parameters["weight"]
        eager = exact_operators.linear(
            hidden.to(getattr(torch, dtype)), head.to(hidden.device).to(getattr(torch, dtype))
        )
        traced = eager.double().reshape(exact.shape)
        least = max(relative_error(traced, exact), torch.finfo(getattr(torch, dtype)).eps / 2)
    times = misfit(ours, exact, least, bounds.eager)
    if times <= 1.0:
        return Look()

    def fits(other: Tensor) -> float:
        return misfit(ours, other, least, bounds.eager)

    fault = _logit_fault(ours, exact, tokens, weights, asked, fits)
    return Look([Finding("result", "logits", "logits", times, fault)])


def _logit_fault(
    ours: Tensor,
    exact: Tensor,
    tokens: Tensor,
    weights: Tensors,
    asked: Configuration,
    fits: Callable[[Tensor], float],
) -> str:
    for words, guess in guesses(ours, exact):
        if fits(guess) <= 1.0:
            return f"not what the traced operators compute: {words}"
    for words, other, config in _other_models(weights, asked):
        if fits(exact_logits(other, config, tokens)) <= 1.0:
            return f"as if {words}"
    if words := _one_parameter(ours, exact, tokens, weights, asked, fits):
        return words
    where = places_in_words(ours, exact)
    return f"not what the traced operators compute: {UNKNOWN}; {where}".rstrip("; ")


def _other_models(
    weights: Tensors, asked: Configuration
) -> Iterator[tuple[str, Tensors, Configuration]]:
    """Other weights or another configuration that one mistake would give."""
    biases = {n: torch.zeros_like(w) for n, w in weights.items() if n.endswith(".bias")}
    if biases:
        yield "no bias were added", {**weights, **biases}, asked
    yield "weights were bfloat16", {n: w.bfloat16().float() for n, w in weights.items()}, asked
    for eps in (1e-6, 1e-5):
        if eps != asked["rms_norm_eps"]:
            yield f"eps were {eps:g}", weights, {**asked, "rms_norm_eps": eps}
    for theta in (asked["rope_theta"] / 2, 1e4, 5e5, 1e6):
        if theta != asked["rope_theta"]:
            yield f"theta were {theta:g}", weights, {**asked, "rope_theta": theta}


def _one_parameter(
    ours: Tensor,
    exact: Tensor,
    tokens: Tensor,
    weights: Tensors,
    asked: Configuration,
    fits: Callable[[Tensor], float],
) -> str:
    """The one parameter that another factor before it would explain everything by."""
    if not ours.is_cuda and sum(w.numel() for w in weights.values()) > _PROBED:
        return ""
    wrong = ours.double() - exact
    tried: list[tuple[float, str]] = []
    for name, weight in weights.items():
        moved = {**weights, name: weight.double() * (1 + _STEP)}
        slope = (exact_logits(moved, asked, tokens) - exact) / _STEP
        power = float(slope.square().sum())
        if power > 0.0:
            factor = float((wrong * slope).sum()) / power
            tried.append((float((wrong - factor * slope).norm()), name))
    for _, name in sorted(tried)[:2]:
        factor = 0.0
        for _ in range(4):  # Gauss–Newton: one number to fit
            here = exact_logits(_times(weights, name, 1 + factor), asked, tokens)
            there = exact_logits(_times(weights, name, 1 + factor + _STEP), asked, tokens)
            slope = (there - here) / _STEP
            factor += float(((ours.double() - here) * slope).sum() / slope.square().sum())
        if fits(exact_logits(_times(weights, name, 1 + factor), asked, tokens)) <= 1.0:
            return f"as if {name} were scaled by {1 + factor:.4g}"
    return ""


def _times(weights: Tensors, name: str, factor: float) -> dict[str, Tensor]:
    return {**weights, name: weights[name].double() * factor}


def judge_gradients(
    loss: float,
    gradients: Tensors,
    batch: Batch,
    weights: Tensors,
    asked: Configuration,
    records: Sequence[OperatorRecord],
    dtype: str,
    bounds: Bounds,
) -> Look:
    """Loss, then gradients from the head down to the embedding."""
    look = Look()
    exact_loss, exact = loss_and_gradients(weights, asked, batch.tokens, batch.target_mask)
    traced = _traced_gradients(records)
    noise = _noise(dtype, asked)
    least = noise
    if records:
        mean = float(records[-1].outputs["loss_sum"]) / batch.targets
        least = max(abs(mean - exact_loss) / exact_loss, 2 * torch.finfo(torch.float32).eps)
    error = abs(loss - exact_loss) / exact_loss
    times = error / (bounds.eager * least)
    per_sequence: list[tuple[float, Tensors]] = []

    def sequence_means() -> tuple[float, dict[str, Tensor]]:
        if not per_sequence:
            per_sequence.extend(_alone(batch, weights, asked))
        count = len(per_sequence)
        mean = sum(one for one, _ in per_sequence) / count
        return mean, {n: sum(g[n] for _, g in per_sequence) / count for n in exact}  # type: ignore[misc]

    if not times <= 1.0:
        mean, _ = sequence_means()
        is_mean = abs(loss - mean) / mean <= bounds.eager * least
        words = "mean of sequence means" if is_mean else f"{loss:.7g}, not {exact_loss:.7g}"
        look.findings.append(Finding("result", "loss", "loss", times, words))
    for name in reversed(list(exact)):
        if name not in gradients:
            words = "has no gradient"
            look.findings.append(Finding("backward", name, "gradient", math.inf, words))
            continue
        least = max(relative_error(traced[name], exact[name]) if name in traced else noise, 1e-7)
        times = misfit(gradients[name], exact[name], least, bounds.eager)
        if times > 1.0:
            words = _gradient_fault(gradients[name], exact[name], least, bounds)
            if words == UNKNOWN:
                _, means = sequence_means()
                if misfit(gradients[name], means[name], least, bounds.eager) <= 1.0:
                    words = "mean of sequence means"
            where = name.removeprefix("model.")
            look.findings.append(Finding("backward", where, "gradient returned", times, words))
    return look


def _gradient_fault(ours: Tensor, exact: Tensor, least: float, bounds: Bounds) -> str:
    fitting = (w for w, g in guesses(ours, exact) if misfit(ours, g, least, bounds.eager) <= 1.0)
    return next(fitting, UNKNOWN)


def _traced_gradients(records: Sequence[OperatorRecord]) -> dict[str, Tensor]:
    """The gradients that a trace shows, summed where several operators share a parameter."""
    found: dict[str, Tensor] = {}
    for record in records:
        for local, gradient in record.grad_parameters.items():
            name = f"model.{record.name}.{local}"
            if record.kind == "linear_cross_entropy":
                tied = "model.embed_tokens.weight"
                name = tied if tied in found else "lm_head.weight"
            found[name] = found[name] + gradient if name in found else gradient
    if "lm_head.weight" in found and not any(r.name == "lm_head" for r in records):
        found.setdefault("lm_head.weight", found["lm_head.weight"])
    return found


def _alone(batch: Batch, weights: Tensors, asked: Configuration) -> Iterator[tuple[float, Tensors]]:
    for row in range(len(batch.tokens)):
        mask = None if batch.target_mask is None else batch.target_mask[row : row + 1]
        if mask is None or bool(mask.any()):
            yield loss_and_gradients(weights, asked, batch.tokens[row : row + 1], mask)


def judge_evaluation(
    ours: float,
    batches: Sequence[Batch],
    weights: Tensors,
    asked: Configuration,
    dtype: str,
    bounds: Bounds,
) -> Look:
    """A held-out loss against the oracle's: sum of token losses over the number of targets."""
    pieces = [_token_losses(batch, weights, asked) for batch in batches]
    losses = [losses[keep] for losses, keep, _ in pieces]
    exact = float(torch.cat(losses).mean())
    least = max(_noise(dtype, asked) / 8, 1e-7)
    times = abs(ours - exact) / exact / (bounds.eager * least) if exact else math.inf
    if times <= 1.0:
        return Look()
    candidates = {
        "mean of batch means": sum(float(x.mean()) for x in losses) / len(losses),
        "masked targets are scored": float(torch.cat([x.flatten() for x, _, _ in pieces]).mean()),
        "targets are the inputs, not shifted": float(
            torch.cat([other[keep] for _, keep, other in pieces]).mean()
        ),
        "the first batch alone": float(losses[0].mean()),
        "the last batch is left out": float(torch.cat(losses[:-1] or losses).mean()),
        "the first eight rows of each batch only": float(
            torch.cat([x[:8][k[:8]] for x, k, _ in pieces]).mean()
        ),
        "a sum, not a mean": float(torch.cat(losses).sum()),
        "perplexity, not loss": math.exp(min(exact, 700.0)),
        "in bits, not nats": exact / math.log(2),
    }
    fitting = [
        words
        for words, other in candidates.items()
        if abs(ours - other) <= bounds.eager * least * abs(other)
    ]
    words = fitting[0] if fitting else f"{ours:.7g}, the oracle has {exact:.7g}; {UNKNOWN}"
    return Look([Finding("result", "evaluation", "held-out loss", times, words)])


def _token_losses(
    batch: Batch, weights: Tensors, asked: Configuration
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses ``[B, T]``, which of them count, and those against the inputs instead."""
    tokens, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
    logits = exact_logits(weights, asked, tokens)
    losses = exact_operators.token_losses(logits, targets).reshape(targets.shape)
    unshifted = exact_operators.token_losses(logits, tokens).reshape(targets.shape)
    mask = torch.ones_like(targets, dtype=torch.bool)
    return losses, mask if batch.target_mask is None else batch.target_mask.bool(), unshifted


def _noise(dtype: str, asked: Configuration) -> float:
    """What a whole model in this dtype may be off, where no trace says it better."""
    return float(torch.finfo(getattr(torch, dtype)).eps) * (4 + math.sqrt(asked["num_layers"]))
