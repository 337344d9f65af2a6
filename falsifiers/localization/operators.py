"""One operator of a trace: does its own output, or its own gradient, leave its bound, and why?

Every operator is recomputed on the inputs that it was really given, so that it answers for its own
error and never for what it was handed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from falsifiers.errors import relative_error
from falsifiers.localization.alternatives import backward_alternatives, forward_alternatives
from falsifiers.localization.findings import UNKNOWN, Bounds, Finding, Look, Point, misfit, rounding
from falsifiers.localization.shapes_of_error import guesses, places_in_words
from falsifiers.operator_parity import _backward_floor, _floor, _gain_error
from falsifiers.reference.flash import flash_backward
from falsifiers.reference.operators import recompute, recompute_backward
from falsifiers.subject import OperatorRecord

Tensors = Mapping[str, Tensor]
_NOTHING = 1e-6
"""What float32 leaves of terms that cancel, relative to them."""


@dataclass(frozen=True)
class Judge:
    """What one operator is held against.

    Attributes:
        bounds: factors over plain torch's error.
        dtype: the compute dtype that was asked for.
        others: the parameters of other operators by full name, for guesses.
    """

    bounds: Bounds
    dtype: torch.dtype
    others: Tensors

    def forward(self, record: OperatorRecord) -> Look:
        """Its outputs."""
        look = Look()
        arguments = (record.kind, record.inputs, record.parameters, record.settings)
        exact = recompute(*arguments, torch.float64)
        eager = recompute(*arguments, self.dtype)
        fits = {
            name: self._fit(record, reference, eager[name]) for name, reference in exact.items()
        }
        times = {name: fits[name](record.outputs[name], exact[name]) for name in exact}
        worst = max(times, key=lambda name: times[name])
        look.points.append(Point("forward", record.name, times[worst]))
        if fault := self._other_dtype(record):
            look.findings.append(Finding("forward", record.name, worst, math.inf, fault))
        elif times[worst] > 1.0:
            fault = self._forward_fault(record, exact, fits)
            look.findings.append(Finding("forward", record.name, worst, times[worst], fault))
        return look

    def backward(self, record: OperatorRecord, wanted: Container[str] | None = None) -> Look:
        """The gradients that it passed on, and those of its parameters; or the `wanted` ones."""
        look = Look()
        if not record.grad_outputs:
            return look
        arguments = (record.kind, record.inputs, record.parameters, record.settings)
        exact, eager = (
            _joined(recompute_backward(*arguments, record.grad_outputs, dtype))
            for dtype in (torch.float64, self.dtype)
        )
        exact = {n: g for n, g in exact.items() if wanted is None or n in wanted}
        ours = {**record.grad_inputs, **record.grad_parameters}
        fits = self._backward_fits(record, exact, eager)
        times = {n: fits[n](ours[n], exact[n]) if n in ours else math.inf for n in exact}
        worst = max(times, key=lambda name: times[name])
        look.points.append(Point("backward", record.name, times[worst]))
        if times[worst] > 1.0:
            fault = self._backward_fault(record, ours, exact, times, fits)
            tensor = f"gradient of {worst}"
            look.findings.append(Finding("backward", record.name, tensor, times[worst], fault))
        return look

    def _other_dtype(self, record: OperatorRecord) -> str:
        made = {n: t for n, t in record.outputs.items() if t.is_floating_point()}
        if record.kind == "linear_cross_entropy":
            return ""
        for tensor in made.values():
            if tensor.dtype != self.dtype:
                names = (str(d).removeprefix("torch.") for d in (tensor.dtype, self.dtype))
                return "computed in {}, not in {}".format(*names)
        return ""

    def _fit(
        self, record: OperatorRecord, reference: Tensor, eager: Tensor
    ) -> Callable[[Tensor, Tensor], float]:
        """How badly a tensor fits another, in units of the bound of this output."""
        least = max(relative_error(eager, reference), _floor(record, self.dtype))
        if record.kind == "linear_cross_entropy":
            # The sum is one float32 number whatever the activations are, and can be right by luck.
            least = max(least, torch.finfo(torch.float32).eps)
        least = self._without_luck(least, reference)
        gain = None
        # Claimed of narrow dtypes only: in float32 plain torch's gain error is often luck.
        if reference.ndim > 1 and self.dtype != torch.float32:
            gain = (_gain_error(eager, reference), self.bounds.gain)

        return _fitted(reference, least, self.bounds.eager, gain)

    def _backward_fits(
        self, record: OperatorRecord, exact: Tensors, eager: Tensors
    ) -> dict[str, Callable[[Tensor, Tensor], float]]:
        floor, factor = _backward_floor(record, self.dtype), self.bounds.eager
        if self.dtype == torch.float32:
            factor *= 2  # sums over a batch in another order: clean ones reach 1.1 of the bound
        kernel: Tensors = {}
        if record.kind == "attention":
            given = {name: value.to(self.dtype) for name, value in record.inputs.items()}
            kernel = flash_backward(**given, grad_out=record.grad_outputs["out"].to(self.dtype))
            factor = self.bounds.attention
        fits = {}
        for name, reference in exact.items():
            least = max(relative_error(eager[name], reference), floor)
            if name in kernel:
                least = max(least, relative_error(kernel[name], reference))
            least = self._without_luck(least, reference)
            size = max(float(g.double().norm()) for g in record.grad_outputs.values())
            fits[name] = _fitted(reference, least, factor, nothing=size)
        return fits

    def _without_luck(self, least: float, reference: Tensor) -> float:
        """Plain torch is right by luck where a result is a zero, a power of two, or one number."""
        unit = torch.finfo(self.dtype).eps / 2
        if self.dtype == torch.float32 or least == 0.0:
            return max(least, rounding(reference, self.dtype), unit)
        return least

    def _forward_fault(
        self,
        record: OperatorRecord,
        exact: Tensors,
        fits: Mapping[str, Callable[[Tensor, Tensor], float]],
    ) -> str:
        with torch.no_grad():
            found: list[tuple[float, str]] = []
            left: list[tuple[float, str]] = []
            for words, compute in self._alternatives(record):
                made = compute()
                times = max(fits[n](record.outputs[n], made[n]) for n in exact)
                found.append((times, words))
                left.append((_left(record.outputs, exact, made), words))
        if fault := _best(found):
            return fault
        if record.kind == "attention" and (fault := _dropout(record, fits["out"])):
            return fault
        wrong = [n for n in exact if fits[n](record.outputs[n], exact[n]) > 1.0]
        parts = [(n, _shape_of_error(record.outputs[n], exact[n], fits[n])) for n in wrong]
        fault = _said(parts, len(exact), "")
        return fault if UNKNOWN not in fault else _nearest(left) or fault

    def _alternatives(
        self, record: OperatorRecord
    ) -> Iterator[tuple[str, Callable[[], dict[str, Tensor]]]]:
        inputs, parameters = _wide(record.inputs), _wide(record.parameters)
        shapes = {p.shape for p in parameters.values()}
        if "weight" in parameters:
            shapes.add(parameters["weight"].shape[:1])
        others = {n: p for n, p in self.others.items() if p.shape in shapes}
        if record.kind not in ("linear", "rmsnorm"):
            others = {}
        yield from forward_alternatives(record.kind, inputs, parameters, record.settings, others)

    def _backward_fault(
        self,
        record: OperatorRecord,
        ours: Tensors,
        exact: Tensors,
        times: Mapping[str, float],
        fits: Mapping[str, Callable[[Tensor, Tensor], float]],
    ) -> str:
        leaves = replace(
            record, inputs=_leaves(record.inputs), parameters=_leaves(record.parameters)
        )
        arguments = (leaves.kind, leaves.inputs, leaves.parameters, leaves.settings)
        found = self._gradient_fits(
            backward_alternatives(*arguments), leaves, record, ours, exact, fits
        )
        if fault := _best(found):
            return fault
        absent = [name for name in exact if name not in ours]
        if absent:
            return f"no gradient of {', '.join(absent)}"
        wrong = [name for name in exact if times[name] > 1.0]
        parts = [(n, _shape_of_error(ours[n], exact[n], fits[n])) for n in wrong]
        fault = _said(parts, len(exact), "gradient of ")
        if UNKNOWN not in fault:
            return fault
        choices = forward_alternatives(*arguments, {})
        found += self._gradient_fits(choices, leaves, record, ours, exact, fits)
        as_if = _best(found)
        return f"gradient as if: {as_if}" if as_if else fault

    def _gradient_fits(
        self,
        alternatives: Iterator[tuple[str, Callable[[], dict[str, Tensor]]]],
        leaves: OperatorRecord,
        record: OperatorRecord,
        ours: Tensors,
        exact: Tensors,
        fits: Mapping[str, Callable[[Tensor, Tensor], float]],
    ) -> list[tuple[float, str]]:
        found = []
        with torch.enable_grad():
            for words, compute in alternatives:
                made = _gradients(compute(), leaves, record.grad_outputs)
                worst = max(fits[n](ours[n], made[n]) if n in ours else math.inf for n in exact)
                found.append((worst, words))
        return found


def _said(parts: list[tuple[str, str]], tensors: int, of: str) -> str:
    """What is wrong with each tensor, once where it is the same with all of them."""
    words = {word for _, word in parts}
    if len(words) == 1 and (len(parts) == tensors or not of):
        names = "" if len(parts) == tensors else f"{', '.join(n for n, _ in parts)}: "
        lead = "gradients " if of else names
        return f"{lead}{words.pop()}"
    return "; ".join(f"{of}{name} {word}" for name, word in parts)


def _fitted(
    exact: Tensor,
    least: float,
    factor: float,
    gain: tuple[float, float] | None = None,
    nothing: float = 0.0,
) -> Callable[[Tensor, Tensor], float]:
    """How badly a tensor fits another, in units of the bound of `exact`.

    The bound stays what it is in absolute terms: an alternative that is smaller than the exact
    result, a product without its bias, say, is not held to a narrower one. Where the exact result
    is zero, rounding leaves what is little beside `nothing`, the size of what it was made of.
    """
    norm = float(exact.norm())

    def fit(ours: Tensor, other: Tensor) -> float:
        if norm == 0.0 and nothing and other is exact and ours.shape == exact.shape:
            return float(ours.double().norm()) / (nothing * factor * max(least, _NOTHING))
        size = float(other.norm())
        wider = max(1.0, norm / size) if size > 0.0 else 1.0
        wide_gain = None if gain is None else (gain[0] * wider, gain[1])
        return misfit(ours, other, least * wider, factor, wide_gain)

    return fit


def _best(found: list[tuple[float, str]]) -> str:
    """The words of what fits best, if it fits, and of what fits nearly as well."""
    fitting = sorted((pair for pair in found if pair[0] <= 1.0), key=lambda pair: pair[0])
    if not fitting:
        return ""
    words = [word for times, word in fitting[:2] if times <= 1.2 * fitting[0][0]]
    return ", or ".join(words)


def _left(ours: Tensors, exact: Tensors, made: Tensors) -> float:
    """The share of the error that an alternative leaves, both as plain L2 norms."""
    pairs = [(ours[n].double() - exact[n], ours[n].double() - made[n]) for n in exact]
    if any(error.shape != rest.shape for error, rest in pairs):
        return math.inf
    return max(float(rest.norm()) for _, rest in pairs) / max(
        (float(error.norm()) for error, _ in pairs), default=math.inf
    )


def _nearest(left: list[tuple[float, str]]) -> str:
    """What does not fit but leaves little of the error."""
    share, words = min(left, default=(math.inf, ""), key=lambda pair: pair[0])
    return f"most like: {words} ({1 - share:.2%} of the error)" if share < 0.05 else ""


def _shape_of_error(ours: Tensor, exact: Tensor, fit: Callable[[Tensor, Tensor], float]) -> str:
    if ours.shape == exact.shape and not bool(torch.isfinite(ours).all()):
        return "not finite"
    # The plainest that fits: a guess of parts has more to choose from.
    for words, guess in guesses(ours, exact):
        if fit(ours, guess) <= 1.0:
            return words
    where = places_in_words(ours, exact)
    return f"{UNKNOWN}; wrong {where}" if where else UNKNOWN


def _dropout(record: OperatorRecord, fit: Callable[[Tensor, Tensor], float]) -> str:
    """The first position attends to itself alone: each head shows v times 0 or 1 / (1 − p)."""
    out, v = (x[:, :, 0].double() for x in (record.outputs["out"], record.inputs["v"]))
    v = v.repeat_interleave(out.shape[1] // v.shape[1], dim=1)
    factor = (out * v).sum(-1) / v.square().sum(-1)
    kept = factor[factor > 0.5]
    if len(kept) and float(kept.min()) > 1.0 + 1e-4 and float(kept.max() - kept.min()) < 0.02:
        share = 1.0 - 1.0 / float(kept.mean())
        if fit(record.outputs["out"][:, :, :1], (factor[..., None] * v)[:, :, None]) <= 1.0:
            return f"dropout left on (about {share:.0%} of the weights dropped)"
    return ""


def _gradients(outputs: Tensors, leaves: OperatorRecord, upstream: Tensors) -> dict[str, Tensor]:
    tensors = {**leaves.inputs, **leaves.parameters}
    wanted = {n: t for n, t in tensors.items() if t.requires_grad}
    linked = [name for name in upstream if outputs[name].requires_grad]
    if not linked:
        return {name: torch.zeros_like(t) for name, t in wanted.items()}
    made = torch.autograd.grad(
        [outputs[name] for name in linked],
        list(wanted.values()),
        [upstream[name].double() for name in linked],
        allow_unused=True,
        materialize_grads=True,
        retain_graph=True,
    )
    return dict(zip(wanted, made, strict=True))


def _joined(pair: tuple[dict[str, Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    return {**pair[0], **pair[1]}


def _wide(tensors: Tensors) -> dict[str, Tensor]:
    return {n: t.detach().double() if t.is_floating_point() else t for n, t in tensors.items()}


def _leaves(tensors: Tensors) -> dict[str, Tensor]:
    return {
        n: t.requires_grad_() if t.is_floating_point() else t for n, t in _wide(tensors).items()
    }
