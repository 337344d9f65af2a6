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

from falsifiers.reference.operators import recompute, recompute_backward
from falsifiers.subject import OperatorRecord

_FEW_ELEMENTS = 16


@dataclass(frozen=True)
class Worst:
    """The largest ratio of our error to plain torch's, and where it was."""

    ratio: float
    name: str


@dataclass(frozen=True)
class TraceVerdict:
    """What a trace showed.

    Attributes:
        operators: how many were compared forward.
        backward_operators: how many were compared backward.
        forward: the worst L2 ratio over all outputs.
        backward: the worst L2 ratio over all gradients of inputs and parameters.
        gain: the worst gain ratio over all outputs and gradients.
    """

    operators: int
    backward_operators: int
    forward: Worst
    backward: Worst
    gain: Worst


def compare_trace(records: Sequence[OperatorRecord], dtype: str) -> TraceVerdict:
    """Compare every operator of a trace, forward and backward."""
    plain = getattr(torch, dtype)
    forward, backward, gain = Worst(0.0, ""), Worst(0.0, ""), Worst(0.0, "")
    backward_operators = 0
    for record in records:
        for name, ours, exact, eager in _forward(record, plain):
            forward = _worse(forward, _l2_ratio(ours, exact, eager), name)
            gain = _worse(gain, _gain_ratio(ours, exact, eager), name)
        if record.grad_outputs and record.kind != "embedding":
            backward_operators += 1
            for name, ours, exact, eager in _backward(record, plain):
                backward = _worse(backward, _l2_ratio(ours, exact, eager), name)
                gain = _worse(gain, _gain_ratio(ours, exact, eager), name)
    return TraceVerdict(len(records), backward_operators, forward, backward, gain)


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
    ours = (record.grad_inputs, record.grad_parameters)
    for side, mine in enumerate(ours):
        for name, gradient in mine.items():
            label = f"{record.name}.{name}.grad"
            yield label, gradient, exact[side][name], eager[side][name]


def _worse(worst: Worst, ratio: float, name: str) -> Worst:
    if math.isnan(worst.ratio):
        return worst
    return Worst(ratio, name) if math.isnan(ratio) or ratio > worst.ratio else worst


def _l2_ratio(ours: Tensor, exact: Tensor, eager: Tensor) -> float:
    size = exact.norm()
    return _ratio(
        ((ours.double() - exact).norm() / size).item(),
        ((eager.double() - exact).norm() / size).item(),
        exact.numel(),
        ours.dtype,
    )


def _gain_ratio(ours: Tensor, exact: Tensor, eager: Tensor) -> float:
    if exact.ndim < 2:
        return 0.0
    return _ratio(_gain_error(ours, exact), _gain_error(eager, exact), exact.numel(), ours.dtype)


def _gain_error(value: Tensor, exact: Tensor) -> float:
    rows, exact_rows = value.double().flatten(0, -2), exact.flatten(0, -2)
    power = exact_rows.square().sum(-1)
    along = ((rows - exact_rows) * exact_rows).sum(-1)
    kept = power > 0  # a row of zeros, a masked one, has no direction
    if not bool(kept.any()):
        return 0.0
    return (along[kept] / power[kept]).square().mean().sqrt().item()


def _ratio(ours: float, eager: float, elements: int, dtype: torch.dtype) -> float:
    if elements < _FEW_ELEMENTS:
        # A lone number can be right by luck; its own rounding is the least that may be asked.
        eager = max(eager, torch.finfo(dtype).eps / 2)
    if ours == 0.0:
        return 0.0
    return ours / eager if eager > 0.0 else math.inf
