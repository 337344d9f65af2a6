"""The bundled trainer as a subject. The only module of the suite that imports `trainer`.

Modules of the trainer are used through their attributes at call time, so that a defect planted in
one of them is seen here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aprverify.planting import launch_command
from falsifiers.subject import (
    EAGER,
    Batch,
    Configuration,
    Execution,
    OperatorRecord,
    RunResult,
    StepMetrics,
    SubjectRefused,
    micro_batches,
)
from trainer import build, config, device
from trainer import execution as execution_module
from trainer import trainer as trainer_module
from trainer.batch import TokenBatch
from trainer.errors import TrainerError
from trainer.model import attention, decoder, embedding, linear, mlp, rmsnorm, rope
from trainer.run import loop
from trainer.run.gpu_sampler import GpuSampler
from trainer.weights import architecture

if TYPE_CHECKING:
    from falsifiers.subject import GradientHook

SEQUENCE_LENGTH = 64
"""Passed to the builders, which only check that the model has so many positions."""


@contextmanager
def refusals() -> Iterator[None]:
    """The trainer's own errors, as the protocol spells them."""
    try:
        yield
    except TrainerError as error:
        raise SubjectRefused(error.status, str(error)) from error


class BundledInstance:
    """A `PretrainTrainer` behind the protocol."""

    def __init__(self, trainer: trainer_module.PretrainTrainer) -> None:
        self._trainer = trainer

    @property
    def config(self) -> Configuration:
        """See the protocol."""
        return asdict(self._trainer.model.config)

    @property
    def device(self) -> str:
        """See the protocol."""
        return str(self._trainer.device)

    @property
    def compute_dtype(self) -> str:
        """See the protocol."""
        return self._trainer.compute_dtype

    def parameters(self) -> Mapping[str, Tensor]:
        """See the protocol."""
        return {n: p.detach() for n, p in self._trainer.model.named_parameters()}

    def set_parameters(self, values: Mapping[str, Tensor]) -> None:
        """See the protocol."""
        own = dict(self._trainer.model.named_parameters())
        with torch.no_grad():
            for name, value in values.items():
                if value.shape != own[name].shape:
                    shapes = f"{list(value.shape)}, not {list(own[name].shape)}"
                    raise ValueError(f"{name}: {shapes}; pass a tensor of the parameter's shape")
                own[name].copy_(value)

    def logits(self, tokens: Tensor) -> Tensor:
        """See the protocol."""
        return self._trainer.logits(tokens)

    def loss_and_gradients(self, batch: Batch) -> tuple[float, Mapping[str, Tensor]]:
        """See the protocol."""
        return self._trainer.loss_and_gradients(_batch(batch))

    def train_step(self, batch: Batch | Sequence[Batch], *, lr: float | None = None) -> StepMetrics:
        """See the protocol."""
        rate = self._trainer.lr if lr is None else lr
        batches = [_batch(one) for one in micro_batches(batch)]
        with refusals(), GpuSampler(self._trainer.device) as sampler:
            metrics = loop.measured_step(self._trainer, batches, rate, sampler)
        fields = asdict(metrics)
        fields.pop("gpu_util_age_s")
        return StepMetrics(**fields)

    def evaluate(self, batches: Sequence[Batch]) -> float:
        """See the protocol."""
        with refusals():
            return self._trainer.evaluate([_batch(batch) for batch in batches])

    def training(self) -> bool:
        """See the protocol."""
        return self._trainer.model.training

    def trace(self, batch: Batch) -> Sequence[OperatorRecord]:
        """See the protocol."""
        return _Tracer(self._trainer).trace(_batch(batch))

    def run(
        self,
        batches: Iterable[Batch],
        *,
        steps: int,
        log: Path,
        before_step: Callable[[int], None] | None = None,
    ) -> RunResult:
        """See the protocol."""
        stream = (_batch(batch) for batch in batches)
        outcome = loop.run_steps(
            self._trainer, stream, steps=steps, log_path=log, before_step=before_step
        )
        lines = log.read_text(encoding="utf-8").splitlines()
        return RunResult(outcome.status, outcome.message, [json.loads(line) for line in lines])

    def on_gradient(self, name: str, hook: GradientHook) -> None:
        """See the protocol."""
        parameter = dict(self._trainer.model.named_parameters())[name]
        parameter.register_hook(hook)  # type: ignore[no-untyped-call]


class BundledSubject:
    """The bundled trainer."""

    name = "bundled"
    target = "falsifiers.adapters.bundled:BundledSubject"

    def configuration(self, name: str) -> Configuration:
        """See the protocol."""
        return asdict({"llama-370m": config.LLAMA_370M, "qwen2-0.5b": config.QWEN2_0_5B}[name])

    def build(
        self,
        config: Configuration,
        *,
        device: str,
        dtype: str,
        seed: int,
        lr: float = 3e-4,
        execution: Execution = EAGER,
    ) -> BundledInstance:
        """See the protocol."""
        with refusals():
            trainer = trainer_module.PretrainTrainer(
                _config(config),
                self.resolve_device(device),
                dtype,
                seed,
                lr,
                how=execution_module.Execution(execution.compiled, execution.deterministic),
            )
        return BundledInstance(trainer)

    def build_pretrain(
        self,
        *,
        device: str,
        dtype: str,
        seed: int,
        init_arch: Configuration | None = None,
        init_path: Path | None = None,
        from_scratch: Configuration | None = None,
    ) -> BundledInstance:
        """See the protocol. CUDA in bfloat16 goes through the CUDA builder, as the command does."""
        with refusals():
            arch = None if init_arch is None else _config(init_arch)
            scratch = config.LLAMA_370M if from_scratch is None else _config(from_scratch)
            if device == "cuda" and dtype == "bfloat16" and from_scratch is None:
                trainer = build.build_shared_cuda_trainer_with_init(
                    3e-4, SEQUENCE_LENGTH, seed, arch, init_path
                )
            else:
                trainer = build.build_shared_trainer_with_init(
                    3e-4,
                    SEQUENCE_LENGTH,
                    seed,
                    arch,
                    init_path,
                    device=device,
                    compute_dtype=dtype,
                    from_scratch=scratch,
                )
        return BundledInstance(trainer)

    def read_architecture(self, weights: Path) -> Configuration:
        """See the protocol."""
        with refusals():
            return asdict(architecture.read_architecture(weights))

    def resolve_device(self, spec: str) -> str:
        """See the protocol."""
        with refusals():
            return device.resolve_device(spec)

    def command(self, *arguments: str) -> list[str]:
        """See the protocol."""
        return launch_command("trainer", *arguments)

    def run_directory(self, path: Path) -> Path:
        """See the protocol. The layout is this trainer's own."""
        return path


def _config(fields: Configuration) -> config.ModelConfig:
    return config.ModelConfig(**fields)


def _batch(batch: Batch) -> TokenBatch:
    return TokenBatch(batch.tokens, batch.target_mask)


class _Tracer:
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
