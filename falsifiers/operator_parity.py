"""Operator by operator: the traced fast path against float64, measured in units of plain torch.

Each operator is judged on the inputs that it was really given, so an error belongs to the operator
that made it and not to those before. The yardstick is the error of plain eager torch in the same
dtype on the same inputs: noise of the dtype divides out, and what is left is the fault.

An error has two parts. The relative L2 error sees any fault as large as the dtype's own rounding.
The *gain* error, each row's error projected on the exact row, averages rounding away and sees
faults far below it, such as statistics rounded once too often.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from falsifiers.errors import relative_error, worst_of
from falsifiers.reference.flash import flash_backward
from falsifiers.reference.operators import recompute, recompute_backward
from falsifiers.subject import OperatorRecord


@dataclass(frozen=True)
class Ratios:
    """Ratios of our error to plain torch's by name, in execution order."""

    named: tuple[tuple[str, float], ...]

    @property
    def ratio(self) -> float:
        """The first NaN, or else the largest; 0 where none is above that."""
        return worst_of(self.named)[0]

    @property
    def name(self) -> str:
        """Where that was."""
        return worst_of(self.named)[1]


@dataclass(frozen=True)
class TraceVerdict:
    """What a trace showed.

    Attributes:
        operators: how many were compared forward.
        backward_operators: how many were compared backward.
        forward: the L2 ratios of all outputs.
        backward: the L2 ratios of the gradients of inputs and parameters, attention aside.
        attention_backward: the L2 ratios of the gradients of q, k and v, against the larger
            error of plain softmax attention and of a plain FlashAttention backward.
        gain: the gain ratios of all outputs.
    """

    operators: int
    backward_operators: int
    forward: Ratios
    backward: Ratios
    attention_backward: Ratios
    gain: Ratios


def compare_trace(records: Sequence[OperatorRecord], dtype: str) -> TraceVerdict:
    """Compare every operator of a trace, forward and backward."""
    plain = getattr(torch, dtype)
    forward: list[tuple[str, float]] = []
    backward: list[tuple[str, float]] = []
    attention: list[tuple[str, float]] = []
    gain: list[tuple[str, float]] = []
    backward_operators = 0
    for record in records:
        for name, ours, exact, eager in _forward(record, plain):
            forward.append((name, _l2_ratio(ours, exact, eager, _floor(record, plain))))
            gain.append((name, _gain_ratio(ours, exact, eager)))
        backward_operators += bool(record.grad_outputs)
        if record.grad_outputs and record.kind == "attention":
            attention += _attention_backward(record, plain)
        elif record.grad_outputs:
            for name, ours, exact, eager in _backward(record, plain):
                least = _backward_floor(record, plain)
                backward.append((name, _l2_ratio(ours, exact, eager, least)))
    parts = (Ratios(tuple(part)) for part in (forward, backward, attention, gain))
    return TraceVerdict(len(records), backward_operators, *parts)


def trace_dtypes(records: Sequence[OperatorRecord]) -> str:
    """The distinct dtypes of floating inputs and outputs, sorted and joined by commas.

    The loss is left out: whatever the activations are, it is a float32 sum.
    """
    given = (tensor for record in records for tensor in record.inputs.values())
    made = (
        tensor
        for record in records
        if record.kind != "linear_cross_entropy"
        for tensor in record.outputs.values()
    )
    floating = {t.dtype for tensors in (given, made) for t in tensors if t.is_floating_point()}
    return ",".join(sorted(str(dtype).removeprefix("torch.") for dtype in floating))


_Compared = Iterator[tuple[str, Tensor, Tensor, Tensor]]


def _forward(record: OperatorRecord, plain: torch.dtype) -> _Compared:
    arguments = (record.kind, record.inputs, record.parameters, record.settings)
    exact = recompute(*arguments, torch.float64)
    eager = recompute(*arguments, plain)
    for name, reference in exact.items():
        yield f"{record.name}.{name}", record.outputs[name], reference, eager[name]


def _backward(record: OperatorRecord, plain: torch.dtype) -> _Compared:
    arguments = (record.kind, record.inputs, record.parameters, record.settings)
    exact = recompute_backward(*arguments, record.grad_outputs, torch.float64)
    eager = recompute_backward(*arguments, record.grad_outputs, plain)
    for side, ours in enumerate((record.grad_inputs, record.grad_parameters)):
        for name, reference in exact[side].items():
            # A gradient that was not traced counts as wrong: leaving it out must not be a pass.
            gradient = ours.get(name, torch.full_like(reference, math.nan))
            yield f"{record.name}.{name}.grad", gradient, reference, eager[side][name]


def _attention_backward(record: OperatorRecord, plain: torch.dtype) -> Iterator[tuple[str, float]]:
    inputs = {name: value.to(plain) for name, value in record.inputs.items()}
    flash = flash_backward(**inputs, grad_out=record.grad_outputs["out"].to(plain))
    for name, ours, exact, eager in _backward(record, plain):
        kernel = flash[name.split(".")[-2]]
        yield name, min(_l2_ratio(ours, exact, eager), _l2_ratio(ours, exact, kernel))


def _floor(record: OperatorRecord, plain: torch.dtype) -> float:
    """The least error that the yardstick is given, for outputs that can be right by luck.

    A loss is one number: a sum over N rows whose independent roundings leave u / √N of it.
    """
    if record.kind != "linear_cross_entropy":
        return 0.0
    return torch.finfo(plain).eps / 2 / math.sqrt(record.inputs["targets"].numel())


def _backward_floor(record: OperatorRecord, plain: torch.dtype) -> float:
    """A table's gradient is exact where no token occurs twice: then one rounding is allowed."""
    return torch.finfo(plain).eps / 2 if record.kind == "embedding" else 0.0


def _l2_ratio(ours: Tensor, exact: Tensor, eager: Tensor, floor: float = 0.0) -> float:
    return _ratio(relative_error(ours, exact), max(relative_error(eager, exact), floor))


def _gain_ratio(ours: Tensor, exact: Tensor, eager: Tensor) -> float:
    if exact.ndim < 2:
        return 0.0
    return _ratio(_gain_error(ours, exact), _gain_error(eager, exact))


def _gain_error(value: Tensor, exact: Tensor) -> float:
    if value.shape != exact.shape:
        return math.inf
    rows, exact_rows = value.double().flatten(0, -2), exact.flatten(0, -2)
    power = exact_rows.square().sum(-1)
    along = ((rows - exact_rows) * exact_rows).sum(-1)
    kept = power > 0  # a row of zeros, a masked one, has no direction
    if not bool(kept.any()):
        return 0.0
    return (along[kept] / power[kept]).square().mean().sqrt().item()


def _ratio(ours: float, eager: float) -> float:
    if ours == 0.0 or math.isnan(ours):
        return ours
    return ours / eager if eager > 0.0 else math.inf
