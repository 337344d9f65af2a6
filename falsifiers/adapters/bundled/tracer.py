"""Every operator of the bundled model as it really ran, watched from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from falsifiers.subject import OperatorRecord
from trainer import config
from trainer import trainer as trainer_module
from trainer.batch import TokenBatch
from trainer.model import attention, decoder, embedding, linear, mlp, rmsnorm, rope


class Tracer:
    """Records every operator of one forward and backward through hooks set from outside."""

    def __init__(self, trainer: trainer_module.PretrainTrainer) -> None:
        self._trainer = trainer
        self._settings = _settings(trainer.model.config)
        self._seen: list[dict[str, Any]] = []

    def trace(self, batch: TokenBatch) -> list[OperatorRecord]:
        """The records of one batch, in execution order."""
        handles = []
        for name, module in self._operators():
            handles += self._hook(name, module)
        try:
            _, gradients = self._trainer.loss_and_gradients(batch)
        finally:
            for handle in handles:
                handle.remove()
        return [self._record(seen, gradients) for seen in self._seen]

    def _operators(self) -> Iterator[tuple[str, nn.Module]]:
        for name, module in self._trainer.model.named_modules():
            if type(module) in _KINDS:
                yield name.removeprefix("model."), module
        yield "loss", self._trainer.loss

    def _hook(self, name: str, module: nn.Module) -> list[Any]:
        kind = _KINDS.get(type(module), "linear_cross_entropy")
        seen: dict[str, Any] = {"name": name, "kind": kind, "module": module}

        def forward(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            seen["inputs"], seen["output"] = inputs, output
            self._seen.append(seen)
            if kind == "embedding":  # tokens have no gradient, so the module's own hook is no use
                output.register_hook(lambda gradient: backward(module, (), (gradient,)))

        def backward(_: nn.Module, grad_inputs: Any, grad_outputs: Any) -> None:
            seen["grad_inputs"], seen["grad_outputs"] = grad_inputs, grad_outputs

        handles: list[Any] = [module.register_forward_hook(forward)]
        if kind != "embedding":
            handles.append(module.register_full_backward_hook(backward))
        return handles

    def _record(self, seen: dict[str, Any], gradients: Mapping[str, Tensor]) -> OperatorRecord:
        kind, module = seen["kind"], seen["module"]
        names = _INPUTS[kind]
        outputs = _OUTPUTS.get(kind, ("out",))
        parameters = {n: p.detach() for n, p in module.named_parameters(recurse=False)}
        inputs = _by_name(names, seen["inputs"])
        grad_inputs = _by_name(names, seen.get("grad_inputs") or ())
        if kind == "linear_cross_entropy":
            parameters = {"weight": inputs.pop("weight")}
        differentiable = {n for n, value in inputs.items() if value.is_floating_point()}
        return OperatorRecord(
            name=seen["name"],
            kind=kind,
            inputs=inputs,
            outputs=_by_name(outputs, _tuple(seen["output"])),
            parameters=parameters,
            settings=self._settings,
            grad_outputs=_by_name(outputs, seen.get("grad_outputs") or ()),
            grad_inputs={n: g for n, g in grad_inputs.items() if n in differentiable},
            grad_parameters=self._own_gradients(seen, parameters, gradients),
        )

    def _own_gradients(
        self,
        seen: dict[str, Any],
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        if seen["kind"] == "linear_cross_entropy":
            return {"weight": self._head_gradient}
        full = {local: f"model.{seen['name']}.{local}" for local in parameters}
        own = {local: gradients[path] for local, path in full.items() if path in gradients}
        if seen["kind"] == "embedding" and self._trainer.model.lm_head is None:
            own["weight"] = own["weight"] - self._head_gradient
        return own

    @property
    def _head_gradient(self) -> Tensor:
        """What the loss alone contributed to the gradient of the head, tied or not."""
        loss = next(s for s in self._seen if s["kind"] == "linear_cross_entropy")
        gradient: Tensor = loss["grad_inputs"][_INPUTS["linear_cross_entropy"].index("weight")]
        return gradient


_KINDS: dict[type[nn.Module], str] = {
    embedding.Embedding: "embedding",
    linear.Linear: "linear",
    rmsnorm.RMSNorm: "rmsnorm",
    rope.RotaryEmbedding: "rope",
    attention.ScaledDotProductAttention: "attention",
    mlp.Gate: "swiglu",
    decoder.Residual: "residual",
}
_INPUTS = {
    "embedding": ("tokens",),
    "linear": ("x",),
    "rmsnorm": ("x",),
    "rope": ("q", "k"),
    "attention": ("q", "k", "v"),
    "swiglu": ("gate", "up"),
    "residual": ("stream", "branch"),
    "linear_cross_entropy": ("hidden", "weight", "targets", "mask"),
}
_OUTPUTS = {"rope": ("q", "k"), "linear_cross_entropy": ("loss_sum",)}


def _settings(architecture: config.ModelConfig) -> dict[str, float]:
    return {"eps": architecture.rms_norm_eps, "theta": architecture.rope_theta}


def _tuple(output: Any) -> tuple[Any, ...]:
    return output if isinstance(output, tuple) else (output,)


def _by_name(names: Sequence[str], values: Sequence[Any]) -> dict[str, Tensor]:
    pairs = zip(names, values, strict=False)  # a trailing optional argument may be absent
    return {name: value.detach() for name, value in pairs if isinstance(value, Tensor)}
