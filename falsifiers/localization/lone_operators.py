"""Operators that a falsifier calls by themselves, recorded as a trace would record them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from falsifiers.localization.findings import Look
from falsifiers.localization.operators import Judge
from falsifiers.subject import OperatorRecord

_JUDGED = 200
"""Calls judged a session."""


@dataclass
class _Call:
    record: OperatorRecord
    wanted: set[str]
    grad_outputs: dict[str, Tensor] = field(default_factory=dict)
    grad_inputs: dict[str, Tensor] = field(default_factory=dict)


class ObservedOperators:
    """Operators that pass everything on. `observer` takes what their own errors show."""

    def __init__(self, inner: Any, observer: Any) -> None:
        self._inner, self._observer = inner, observer
        self._waiting: list[_Call] = []
        self._judged = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def rmsnorm(self, x: Tensor, weight: Tensor, *, eps: float) -> Tensor:
        """See the protocol."""
        call = lambda t: self._inner.rmsnorm(t["x"], t["weight"], eps=eps)  # noqa: E731
        (out,) = self._called("rmsnorm", {"x": x, "weight": weight}, {"eps": eps}, call)
        return out

    def rope(self, q: Tensor, k: Tensor, *, theta: float) -> tuple[Tensor, Tensor]:
        """See the protocol."""
        call = lambda t: self._inner.rope(t["q"], t["k"], theta=theta)  # noqa: E731
        out_q, out_k = self._called("rope", {"q": q, "k": k}, {"theta": theta}, call)
        return out_q, out_k

    def swiglu(self, gate: Tensor, up: Tensor) -> Tensor:
        """See the protocol."""
        call = lambda t: self._inner.swiglu(t["gate"], t["up"])  # noqa: E731
        (out,) = self._called("swiglu", {"gate": gate, "up": up}, {}, call)
        return out

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See the protocol."""
        call = lambda t: self._inner.attention(t["q"], t["k"], t["v"])  # noqa: E731
        (out,) = self._called("attention", {"q": q, "k": k, "v": v}, {}, call)
        return out

    def _called(
        self,
        kind: str,
        given: dict[str, Tensor],
        settings: dict[str, float],
        call: Callable[[dict[str, Tensor]], Any],
    ) -> tuple[Tensor, ...]:
        self.finish()
        done = self._observer.settled or self._judged >= _JUDGED
        if done or any(t.numel() == 0 for t in given.values()):
            result = call(given)
            return result if isinstance(result, tuple) else (result,)
        leaves = {n: t.view_as(t) if t.requires_grad else t for n, t in given.items()}
        result = call(leaves)
        outputs = result if isinstance(result, tuple) else (result,)
        names = ("q", "k") if kind == "rope" else ("out",)
        inputs = {n: t.detach().clone() for n, t in given.items()}
        parameters = {"weight": inputs.pop("weight")} if "weight" in inputs else {}
        made = {n: o.detach().clone() for n, o in zip(names, outputs, strict=True)}
        record = OperatorRecord(kind, kind, inputs, made, parameters, settings)
        wanted = {n for n, t in leaves.items() if t.requires_grad}
        waiting = _Call(record, wanted)
        for name, leaf in leaves.items():
            if leaf.requires_grad:
                leaf.register_hook(_keep(waiting.grad_inputs, name))  # type: ignore[no-untyped-call]
        for name, output in zip(names, outputs, strict=True):
            if output.requires_grad:
                output.register_hook(_keep(waiting.grad_outputs, name))
        self._waiting.append(waiting)
        return outputs

    def finish(self) -> None:
        """Judge the calls whose gradients have arrived, or will not."""
        for call in self._waiting:
            if not self._observer.settled:
                self._judged += 1
                self._observer.take(self._look(call), call.record.kind)
        self._waiting.clear()

    def _look(self, call: _Call) -> Look:
        record = call.record
        dtype = next(t.dtype for t in record.inputs.values() if t.is_floating_point())
        judge = Judge(self._observer.bounds, dtype, {})
        try:
            look = judge.forward(record)
            if call.grad_outputs and call.wanted == call.grad_inputs.keys():
                gradients = dict(call.grad_inputs)
                of_weight = {"weight": gradients.pop("weight")} if "weight" in gradients else {}
                full = replace(
                    record,
                    grad_outputs=call.grad_outputs,
                    grad_inputs=gradients,
                    grad_parameters=of_weight,
                )
                look.add(judge.backward(full, call.wanted))
        except (RuntimeError, ValueError) as error:
            self._observer.notes[f"{record.kind} was not judged: {error}"[:200]] = None
            return Look()
        return look


def _keep(kept: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        kept[name] = gradient.detach().clone()

    return hook
