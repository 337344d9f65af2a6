"""One optimizer step, quantity by quantity: the first that does not follow from those before it.

What the step used is read from the state that it left: the gradient from the first moment, the
update from the weights. Each quantity is held against the subject's own earlier ones, in float64,
so that a wrong gradient is not blamed on the clipping that was handed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from falsifiers.errors import relative_error
from falsifiers.localization.findings import UNKNOWN, Finding, Look
from falsifiers.localization.shapes_of_error import guesses, scaled_by
from falsifiers.reference.gradients import global_norm
from falsifiers.subject import StepMetrics
from falsifiers.subject_parts import Moments

Tensors = Mapping[str, Tensor]
_FLOAT32 = torch.finfo(torch.float32).eps
_CANCELS = 0.03
"""The share of the largest gradient below which a tensor's own is small by cancellation."""
_TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-2}
"""Relative: sums in another order, and a gradient read back from a moment, differ by less."""


@dataclass(frozen=True)
class Hyper:
    """AdamW's and the clipping's constants, of the case or a contract."""

    beta1: float
    beta2: float
    eps: float
    decay: float
    clip: float


@dataclass(frozen=True)
class State:
    """Copies of weights and moments."""

    weights: Tensors
    moments: Mapping[str, Moments]


@dataclass(frozen=True)
class Micro:
    """The subject's own loss and gradients of one micro-batch, and its targets."""

    loss: float
    gradients: Tensors
    targets: int


@dataclass(frozen=True)
class Step:
    """Everything known of one step."""

    before: State
    after: State
    metrics: StepMetrics
    micros: Sequence[Micro]
    lr: float | None
    hyper: Hyper
    dtype: str

    @property
    def tolerance(self) -> float:
        """How far relative errors may go."""
        return _TOLERANCES[self.dtype]

    @property
    def targets(self) -> int:
        """Targets of the whole step."""
        return sum(micro.targets for micro in self.micros)

    @property
    def loss(self) -> float:
        """The mean over targets of the subject's own losses."""
        return sum(m.loss * m.targets for m in self.micros) / self.targets

    def gradient(self, weigh: Callable[[Micro], float] | None = None) -> dict[str, Tensor]:
        """The weighted sum of the micro-batches' gradients, by targets unless said otherwise."""
        shares = [weigh(m) if weigh else m.targets / self.targets for m in self.micros]
        pairs = list(zip(self.micros, shares, strict=True))
        names = self.micros[0].gradients
        return {
            n: torch.stack([m.gradients[n].double() * s for m, s in pairs]).sum(0) for n in names
        }

    def used(self) -> dict[str, Tensor]:
        """The gradient that AdamW was given, from the first moments before and after."""
        beta1, used = self.hyper.beta1, {}
        for name, moments in self.after.moments.items():
            old = self.before.moments.get(name)
            was = old.exp_avg.double() if old else torch.zeros_like(moments.exp_avg).double()
            used[name] = (moments.exp_avg.double() - beta1 * was) / (1 - beta1)
        return used


def judge_step(step: Step) -> Look:
    """What does not follow, first cause first; everything after it is left unjudged."""
    for check in (_loss, _backward, _clipping, _norm, _rate, _moments, _weights):
        if found := list(check(step)):
            return Look(found)
    return Look()


def _finding(step: Step, quantity: str, tensor: str, error: float, fault: str) -> Finding:
    where = f"step {step.metrics.step}, {quantity}"
    return Finding(quantity, where, tensor, error / step.tolerance, fault)


def _loss(step: Step) -> Iterator[Finding]:
    ours, exact = step.metrics.train_loss, step.loss
    error = abs(ours - exact) / abs(exact) if exact else math.inf
    if error <= step.tolerance:
        return
    candidates = {
        "mean of micro-batch means": sum(m.loss for m in step.micros) / len(step.micros),
        "of the first micro-batch alone": step.micros[0].loss,
        "of the last micro-batch alone": step.micros[-1].loss,
        "a constant": 1.0,
    }
    if len(step.micros) > 1:
        kept = step.micros[:-1]
        total = sum(m.loss * m.targets for m in kept)
        candidates["lacks the last micro-batch"] = total / sum(m.targets for m in kept)
        candidates["lacks the last micro-batch, which still counts"] = total / step.targets
    # Losses of micro-batches are close to each other: the nearest, not the first that fits.
    nearest = min(candidates, key=lambda w: abs(ours - candidates[w]))
    fits = abs(ours - candidates[nearest]) <= step.tolerance * abs(candidates[nearest])
    words = nearest if fits else UNKNOWN
    yield _finding(step, "loss", "train_loss", error, f"{words}: {ours:.6g}, not {exact:.6g}")


def _backward(step: Step) -> Iterator[Finding]:
    if not step.after.moments:
        return
    used, own = step.used(), step.gradient()
    factor = _common_factor(used, own)
    errors = {n: relative_error(used[n], own[n] * factor) for n in own if n in used}
    errors = _without_cancelled(step, own, errors)
    absent = [n for n in own if n not in used]
    wrong = [n for n in reversed(list(own)) if n in absent or not errors[n] <= step.tolerance]
    if not wrong:
        return
    if all(_parallel(used[n], own[n], step.tolerance) for n in wrong if n in used) and not absent:
        return  # every tensor is right but for a factor of its own: clipping says which
    where = wrong[0]
    if where in absent:
        fault = "has no moments: it is not trained"
        yield _finding(step, "backward", where, math.inf, fault)
        return
    fault = _gradient_fault(step, used, where)
    yield _finding(step, "backward", where, errors[where], fault)


def _without_cancelled(step: Step, own: Tensors, errors: dict[str, float]) -> dict[str, float]:
    """In a narrow dtype, relative errors of what nearly cancels by a larger size than its own.

    The exact gradient of a k bias is next to nothing: what is left of it there is rounding.
    """
    largest = max((float(g.norm()) for g in own.values()), default=0.0)
    if step.dtype == "float32" or largest == 0.0:
        return errors
    shares = {n: float(own[n].norm()) / (_CANCELS * largest) for n in errors}
    return {n: error * min(1.0, shares[n]) for n, error in errors.items()}


def _gradient_fault(step: Step, used: Tensors, where: str) -> str:
    candidates: dict[str, dict[str, Tensor]] = {
        "mean of micro-batch means": step.gradient(lambda _: 1 / len(step.micros)),
    }
    for index in (0, -1):
        if len(step.micros) > 1:
            side = "first" if index == 0 else "last"
            kept = step.micros[index]
            candidates[f"the {side} micro-batch alone"] = replace(step, micros=[kept]).gradient()
            others = [micro for micro in step.micros if micro is not kept]
            candidates[f"lacks the {side} micro-batch"] = replace(step, micros=others).gradient()
    own = step.gradient()
    penalty = {n: step.hyper.decay * w.double() for n, w in step.before.weights.items()}
    clipped = _clip(step, own)
    candidates["L2 penalty added to the gradient"] = {
        n: clipped * g + penalty.get(n, torch.zeros_like(g)) for n, g in own.items()
    }
    for words, gradients in candidates.items():
        factor = _common_factor(used, gradients)
        if all(relative_error(used[n], gradients[n] * factor) <= step.tolerance for n in used):
            return f"gradient is {words}"
    exact = own[where] * clipped
    for words, guess in guesses(used[where], exact):
        if relative_error(used[where], guess) <= step.tolerance:
            return f"gradient {words}"
    left = used[where] - exact
    for name, old in step.before.moments.items():
        if name == where and old.step > 0 and _parallel(left, old.exp_avg.double(), 0.3):
            return "gradient of earlier steps is still in it: not cleared"
    return f"gradient is not its own loss's: {UNKNOWN}"


def _clipping(step: Step) -> Iterator[Finding]:
    if not step.after.moments:
        return
    used, own = step.used(), step.gradient()
    norm, right = global_norm(own), _clip(step, own)
    factor = _common_factor(used, own)
    factors = {n: _common_factor({n: used[n]}, {n: own[n]}) for n in own}
    errors = _without_cancelled(step, own, {n: abs(f - right) / right for n, f in factors.items()})
    worst = max(errors, key=lambda n: errors[n])
    if errors[worst] <= step.tolerance:
        return
    limit = step.hyper.clip
    candidates = {
        "not clipped": 1.0,
        "divided by the squared norm": min(1.0, limit / norm**2),
        "divided by the root of the norm": min(1.0, limit / norm**0.5),
        "clipped twice": right * right,
        "gradients averaged once more over micro-batches": right / len(step.micros),
        "gradients summed over micro-batches": right * len(step.micros),
        "update reversed: the sign of the gradient": -right,
    }
    tensors = {n: min(1.0, limit / max(global_norm({n: own[n]}), 1e-30)) for n in own}
    if all(abs(factors[n] - f) <= step.tolerance * f for n, f in tensors.items()):
        words = "each tensor clipped by its own norm"
    else:
        words = next(
            (w for w, c in candidates.items() if abs(factor - c) <= step.tolerance * abs(c)),
            f"factor {factor:.6g}, not {right:.6g}",
        )
    yield _finding(step, "clipping", worst, errors[worst], f"{words} (norm {norm:.4g})")


def _norm(step: Step) -> Iterator[Finding]:
    own = step.gradient()
    ours, exact = step.metrics.grad_norm, global_norm(own)
    error = abs(ours - exact) / exact if exact else math.inf
    if error <= step.tolerance:
        return
    candidates = {
        "after clipping": min(exact, step.hyper.clip),
        "the sum of squares, not its root": exact * exact,
        "a constant": 1.0,
        **{f"of {n} alone": global_norm({n: g}) for n, g in own.items()},
        "of the sum over micro-batches": exact * len(step.micros),
    }
    fitting = [w for w, c in candidates.items() if abs(ours - c) <= step.tolerance * abs(c)]
    words = fitting[0] if fitting else UNKNOWN
    said = f"{words}: {ours:.6g}, not {exact:.6g}"
    yield _finding(step, "gradient norm", "grad_norm", error, said)


def _rate(step: Step) -> Iterator[Finding]:
    if step.lr is None or step.lr == 0:
        return
    error = abs(step.metrics.lr - step.lr) / step.lr
    if error > step.tolerance:
        words = scaled_by(step.metrics.lr / step.lr)
        fault = f"{words}: {step.metrics.lr:.6g} reported, {step.lr:.6g} asked for"
        yield _finding(step, "learning rate", "lr", error, fault)


def _moments(step: Step) -> Iterator[Finding]:
    used, beta2 = step.used(), step.hyper.beta2
    for name, moments in step.after.moments.items():
        old = step.before.moments.get(name)
        count = (old.step if old else 0) + 1
        if moments.step != count:
            fault = f"step count {moments.step}, not {count}"
            yield _finding(step, "optimizer", f"{name} step", math.inf, fault)
            return
        was = old.exp_avg_sq.double() if old else torch.zeros_like(used[name])
        square, ours = used[name].square(), moments.exp_avg_sq.double()
        wanted = beta2 * was + (1 - beta2) * square
        if float(wanted.abs().max()) < torch.finfo(torch.float32).tiny:
            continue  # too small a square for a float32
        error = relative_error(ours, wanted)
        if not error <= 10 * step.tolerance:  # squares have twice the relative error
            change = square - was
            power = float(change.square().sum())
            share = float(((ours - was) * change).sum()) / power if power else 0.0
            other = was + share * change
            fits = relative_error(ours, other) <= 10 * step.tolerance
            words = f"beta2 is {1 - share:.6g}, not {beta2:g}" if fits else UNKNOWN
            yield _finding(step, "optimizer", f"{name} exp_avg_sq", error, words)
            return


def _weights(step: Step) -> Iterator[Finding]:
    if not step.after.moments:
        return
    rate = step.metrics.lr if step.lr is None else step.lr
    misfits = _misfits(step, rate, _right_update)
    worst = next((name for name, times in misfits.items() if not times <= 1.0), "")
    if not worst:
        return
    fault = _update_fault(step, rate, misfits)
    where = f"step {step.metrics.step}, weights"
    yield Finding("weights", where, worst, misfits[worst], fault)


_Update = Callable[[Tensor, Tensor, Tensor, int, Hyper], Tensor]


def _misfits(step: Step, rate: float, update: _Update) -> dict[str, float]:
    """By tensor, the largest elementwise error of the new weights over their own rounding."""
    found = {}
    for name, moments in step.after.moments.items():
        was, now = (s.weights[name].double() for s in (step.before, step.after))
        first, second = moments.exp_avg.double(), moments.exp_avg_sq.double()
        change = update(was, first, second, moments.step, step.hyper)
        allowed = 2 * _FLOAT32 * was.abs() + 10 * step.tolerance * rate * (1 + change.abs())
        allowed += torch.finfo(torch.float32).tiny  # a zero at a rate of zero
        found[name] = float(((now - was + rate * change).abs() / allowed).max())
    return found


def _unbiased(first: Tensor, second: Tensor, count: int, h: Hyper) -> tuple[Tensor, Tensor]:
    return first / (1 - h.beta1**count), second / (1 - h.beta2**count)


def _right_update(w: Tensor, first: Tensor, second: Tensor, count: int, h: Hyper) -> Tensor:
    m, v = _unbiased(first, second, count, h)
    return m / (v.sqrt() + h.eps) + (h.decay * w if w.ndim >= 2 else 0.0)


def _updates() -> Iterator[tuple[str, _Update]]:
    def without_decay(w: Tensor, a: Tensor, b: Tensor, c: int, h: Hyper) -> Tensor:
        m, v = _unbiased(a, b, c, h)
        return m / (v.sqrt() + h.eps)

    def decay_everywhere(w: Tensor, a: Tensor, b: Tensor, c: int, h: Hyper) -> Tensor:
        return without_decay(w, a, b, c, h) + h.decay * w

    def uncorrected(w: Tensor, a: Tensor, b: Tensor, c: int, h: Hyper) -> Tensor:
        return a / (b.sqrt() + h.eps) + (h.decay * w if w.ndim >= 2 else 0.0)

    def eps_inside(w: Tensor, a: Tensor, b: Tensor, c: int, h: Hyper) -> Tensor:
        m, v = _unbiased(a, b, c, h)
        return m / (v + h.eps).sqrt() + (h.decay * w if w.ndim >= 2 else 0.0)

    yield "weights not updated", lambda w, a, b, c, h: torch.zeros_like(w)
    yield "weight decay left out", without_decay
    yield "weight decay on norms and biases too", decay_everywhere
    yield "bias correction left out", uncorrected
    yield "bias correction of the first step", lambda w, a, b, c, h: _right_update(w, a, b, 1, h)
    yield "eps inside the root", eps_inside
    yield "update reversed", lambda w, a, b, c, h: -_right_update(w, a, b, c, h)
    yield (
        "decay reversed",
        lambda w, a, b, c, h: 2 * without_decay(w, a, b, c, h) - _right_update(w, a, b, c, h),
    )


def _update_fault(step: Step, rate: float, misfits: Mapping[str, float]) -> str:
    for words, update in _updates():
        if max(_misfits(step, rate, update).values()) <= 1.0:
            return words
    times = _moved(step, rate)
    if times is not None:
        return f"moved by {times * rate:.4g} × the update, the rate is {rate:.4g}"
    narrow = {n: w for n, w in step.after.weights.items()}
    if all(torch.equal(w, w.bfloat16().to(w.dtype)) for w in narrow.values()):
        return "weights rounded to bfloat16"
    wrong = [n for n, t in misfits.items() if not t <= 1.0]
    return f"{UNKNOWN}; {len(wrong)} of {len(misfits)} tensors"


def _moved(step: Step, rate: float) -> float | None:
    """The one factor before all updates that explains them, if there is one."""
    changes, updates = {}, {}
    for name, m in step.after.moments.items():
        was = step.before.weights[name].double()
        changes[name] = (was - step.after.weights[name].double()) / rate
        first, second = m.exp_avg.double(), m.exp_avg_sq.double()
        updates[name] = _right_update(was, first, second, m.step, step.hyper)
    factor = _common_factor(changes, updates)
    fits = _misfits(step, rate * factor, _right_update) if factor > 0 else {}
    return factor if fits and max(fits.values()) <= 1.0 else None


def _clip(step: Step, gradients: Tensors) -> float:
    norm = global_norm(gradients)
    return min(1.0, step.hyper.clip / norm) if norm > 0 else 1.0


def _common_factor(ours: Tensors, exact: Tensors) -> float:
    """The one factor, by least squares over all tensors."""
    names = ours.keys() & exact.keys()
    power = sum(float(exact[n].square().sum()) for n in names)
    along = sum(float((ours[n] * exact[n]).sum()) for n in names)
    return along / power if power else 0.0


def _parallel(ours: Tensor, exact: Tensor, tolerance: float) -> bool:
    factor = _common_factor({"": ours}, {"": exact})
    return relative_error(ours, exact * factor) <= tolerance
