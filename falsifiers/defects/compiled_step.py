"""A fast path that is not the plain one: captured inputs, lost terms, forgotten parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.subject import EAGER, Configuration, Execution, micro_batches
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper, wrap_instances


@defect(
    "graph-replays-first-tokens",
    kind=SOURCE,
    imitates="a CUDA graph whose input buffer is never refilled",
    symptom="every captured step trains on the batch that it was captured with",
    hidden="the loss falls, and faster than it should",
)
def graph_replays_first_tokens(plant: Plant) -> None:
    """Refill the buffers with what they hold."""

    def make(original: Any) -> Any:
        def replay(captured: Any, batches: Sequence[Any]) -> Any:
            pairs = list(zip(captured.tokens, batches, strict=True))
            plant.effect(any(differs(old.cpu(), new.tokens.cpu()) for old, new in pairs))
            return original(captured, [replace(b, tokens=held.clone()) for held, b in pairs])

        return replay

    plant.patch("trainer.step_graph:_Captured.replay", make)


@defect(
    "compiled-projections-lack-bias",
    kind=SOURCE,
    imitates="the seed's CUDA block, which had no b_q, b_k, b_v",
    symptom="where q, k and v are projected together their biases are not added",
    hidden="only compiled code projects them together; every check of the eager model passes",
)
def compiled_projections_lack_bias(plant: Plant) -> None:
    """Multiply without biases in compiled layers."""
    from importlib import import_module

    linear: Any = import_module("trainer.model.linear")

    def joint(_: Any) -> Any:
        def project_jointly(x: Any, *linears: Any) -> Any:
            return linear._product(x, *(each.weight for each in linears))

        return project_jointly

    # Compiled code cannot report, so what it will lack is reported when it is asked for.
    def asked(original: Any) -> Any:
        def prepare(model: Any, how: Any) -> None:
            names = [name for name, _ in model.named_parameters()]
            plant.effect(how.compiled and any(name.endswith("q_proj.bias") for name in names))
            original(model, how)

        return prepare

    plant.patch("trainer.model.attention:project_jointly", joint)
    plant.patch("trainer.execution:prepare", asked)


class _CompiledOnly(SubjectWrapper):
    """Where a compiled instance is asked for, gives a plain one with the fault; others are clean.

    So the fault is all that differs, and no tooth waits for a compiler.
    """

    def build(self, config: Configuration, *, device: str, **options: Any) -> Any:
        """Build plainly, then wrap if it should have been compiled."""
        asked: Execution = options.get("execution", EAGER)
        given = {**options, "execution": replace(asked, compiled=False)}
        instance = self.inner.build(config, device=device, **given)
        return self._instance(instance, self.plant) if asked.compiled else instance


class _FirstBatchAgain(InstanceWrapper):
    first: Any = None

    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A step on the micro-batches of the first."""
        batches = micro_batches(batch)
        self.first = batches if self.first is None else self.first
        self.plant.effect(self.first is not batches)
        return self.inner.train_step(self.first, lr=lr)


@defect(
    "compiled-step-repeats-first-batch",
    kind=PROTOCOL,
    imitates="a CUDA graph whose input buffer is never refilled",
    symptom="every compiled step trains on the first batch",
    hidden="the loss falls, and faster than it should",
)
def compiled_step_repeats_first_batch(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _CompiledOnly(subject, plant, _FirstBatchAgain))


class _FirstRateKept(InstanceWrapper):
    first: float | None = None

    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A step at the rate of the first, which reports the rate that was asked for."""
        self.first = lr if self.first is None else self.first
        self.plant.effect(self.first != lr)
        metrics = self.inner.train_step(batch, lr=self.first)
        return metrics if lr is None else replace(metrics, lr=lr)


@defect(
    "compiled-step-keeps-first-rate",
    kind=PROTOCOL,
    imitates="a learning rate captured in a CUDA graph as a constant",
    symptom="every compiled step is taken at the rate of the first, and reports the one asked for",
    hidden="the schedule is right wherever it is logged",
)
def compiled_step_keeps_first_rate(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _CompiledOnly(subject, plant, _FirstRateKept))


class _NormForgotten(InstanceWrapper):
    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A right step, after which one norm is what it was."""
        name = "model.layers.1.input_layernorm.weight"
        before = self.inner.parameters()[name].clone()
        metrics = self.inner.train_step(batch, lr=lr)
        self.plant.effect(differs(before, self.inner.parameters()[name]))
        self.inner.set_parameters({name: before})
        return metrics


@defect(
    "compiled-step-forgets-a-norm",
    kind=PROTOCOL,
    imitates="a fused optimizer whose table of tensors misses one",
    symptom="one norm weight never moves in compiled training",
    hidden="one of a hundred norms; the others make up for it",
)
def compiled_step_forgets_a_norm(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _CompiledOnly(subject, plant, _NormForgotten))


@defect(
    "eager-is-compiled",
    kind=SOURCE,
    imitates="a flag with the meaning of its opposite: no_compile, passed on as compile",
    symptom="what was asked for eager goes through the compiler",
    hidden="results agree within rounding, and every check of eager code passes",
)
def eager_is_compiled(plant: Plant) -> None:
    """Compile the layers of eager models, by a compiler that changes nothing."""

    def make(original: Any) -> Any:
        def prepare(model: Any, how: Any) -> None:
            original(model, how)
            plant.effect(not how.compiled)
            if not how.compiled:
                for layer in model.model.layers:
                    layer.compile(backend="eager", dynamic=False)

        return prepare

    plant.patch("trainer.execution:prepare", make)


class _HelperCompiled(InstanceWrapper):
    def evaluate(self, batches: Any) -> float:
        """The same loss, of batches that went through a compiled function."""
        import torch

        copy = torch.compile(torch.clone, backend="eager")
        self.plant.effect(True)
        return self.inner.evaluate([replace(batch, tokens=copy(batch.tokens)) for batch in batches])


@defect(
    "helper-compiled-in-eager",
    kind=PROTOCOL,
    imitates="a @torch.compile decorator, which no flag reaches",
    symptom="an evaluation that was asked for eager compiles one of its helpers",
    hidden="the loss is the same to the last bit",
)
def helper_compiled_in_eager(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _HelperCompiled)
