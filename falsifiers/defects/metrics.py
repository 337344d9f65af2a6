"""Metrics that are placeholders, partial or made up."""

from __future__ import annotations

from typing import Any, ClassVar

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, wrap_instances


class _LogAltered(InstanceWrapper):
    """Rewrites the logged metrics."""

    fields: ClassVar[dict[str, Any]] = {}

    def run(self, *arguments: Any, **options: Any) -> Any:
        """The run with other metrics in its log."""
        from dataclasses import replace

        result = self.inner.run(*arguments, **options)
        altered = [{**line, **self.fields} for line in result.logged]
        self.plant.effect(altered != list(result.logged))
        return replace(result, logged=altered)


class _Placeholder(_LogAltered):
    fields: ClassVar[dict[str, Any]] = {"train_loss": 1.0, "grad_norm": 1.0}


class _ConstantNorm(_LogAltered):
    fields: ClassVar[dict[str, Any]] = {"grad_norm": 1.0}


class _MadeUpThroughput(_LogAltered):
    fields: ClassVar[dict[str, Any]] = {"tokens_per_sec": 100_000.0}


class _MadeUpUtilisation(_LogAltered):
    fields: ClassVar[dict[str, Any]] = {"gpu_util_pct": 50.3, "gpu_util_absent_reason": None}


class _UnexplainedUtilisation(_LogAltered):
    fields: ClassVar[dict[str, Any]] = {"gpu_util_pct": None, "gpu_util_absent_reason": None}


class _CountedFromOne(InstanceWrapper):
    def run(self, *arguments: Any, **options: Any) -> Any:
        """The run with its steps numbered from 1."""
        from dataclasses import replace

        result = self.inner.run(*arguments, **options)
        self.plant.effect(bool(result.logged))
        return replace(result, logged=[{**x, "step": x["step"] + 1} for x in result.logged])


class _RateHalved(InstanceWrapper):
    def run(self, *arguments: Any, **options: Any) -> Any:
        """The run with half the rate in its log."""
        from dataclasses import replace

        result = self.inner.run(*arguments, **options)
        self.plant.effect(any(line["lr"] for line in result.logged))
        return replace(result, logged=[{**x, "lr": x["lr"] / 2} for x in result.logged])


@defect(
    "step-counted-from-one",
    kind=PROTOCOL,
    imitates="a counter that is advanced before it is logged",
    symptom="the first step is logged as step 1",
    hidden="every curve is shifted by one step",
)
def step_counted_from_one(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _CountedFromOne)


@defect(
    "logged-rate-halved",
    kind=PROTOCOL,
    imitates="a rate logged from one parameter group of several",
    symptom="the log holds half the rate that was used",
    hidden="training itself is right",
)
def logged_rate_halved(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _RateHalved)


@defect(
    "placeholder-metrics",
    kind=PROTOCOL,
    imitates="the seed: (1.0, 1.0) when the shard stream was empty",
    symptom="loss and gradient norm are the constant 1.0",
    hidden="a flat curve looks like convergence: four epochs of it were recorded",
)
def placeholder_metrics(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _Placeholder)


@defect(
    "grad-norm-constant",
    kind=PROTOCOL,
    imitates="the seed's CPU path: grad_norm is 1.0",
    symptom="the gradient norm is the constant 1.0",
    hidden="it is a plausible norm, and the loss is right",
)
def grad_norm_constant(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _ConstantNorm)


@defect(
    "lm-head-norm",
    kind=SOURCE,
    imitates="the seed's CUDA path: the norm of the language-model head",
    symptom="the gradient norm, and the clipping by it, cover one matrix",
    hidden="for a tied head it is most of the norm, and it moves with the real one",
)
def lm_head_norm(plant: Plant) -> None:
    """The norm of the first parameter, the embedding that is also the head."""

    def make(original: Any) -> Any:
        def global_norm(parameters: Any) -> Any:
            parameters = list(parameters)
            clean, spoiled = original(parameters), original(parameters[:1])
            plant.effect(bool(clean != spoiled))
            return spoiled

        return global_norm

    plant.patch("trainer.gradients:global_norm", make)


@defect(
    "norm-after-clipping",
    kind=SOURCE,
    imitates="a norm read after the gradients were scaled",
    symptom="the gradient norm is never above 1.0",
    hidden="below the limit it is right, and a capped curve looks well-behaved",
)
def norm_after_clipping(plant: Plant) -> None:
    """Report min(norm, 1)."""

    from dataclasses import replace

    def make(original: Any) -> Any:
        def get(reading: Any) -> Any:
            clean = original(reading)
            plant.effect(clean.grad_norm > 1.0)
            return replace(clean, grad_norm=min(clean.grad_norm, 1.0))

        return get

    plant.patch("trainer.pending:Reading.get", make)


@defect(
    "throughput-made-up",
    kind=PROTOCOL,
    imitates="a nominal rate written where a measurement belongs",
    symptom="tokens_per_sec is a constant",
    hidden="it is a plausible rate",
)
def throughput_made_up(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _MadeUpThroughput)


@defect(
    "throughput-counts-masked-tokens",
    kind=SOURCE,
    imitates="tokens per second over padded positions",
    symptom="positions whose target does not count are counted as tokens",
    hidden="without padding the figure is right",
)
def throughput_counts_masked_tokens(plant: Plant) -> None:
    """Count every position."""
    from dataclasses import replace

    def make(original: Any) -> Any:
        def measured(pending: Any, batches: Any, *rest: Any) -> Any:
            metrics = original(pending, batches, *rest)
            several = batches if isinstance(batches, (list, tuple)) else [batches]
            positions = sum(batch.tokens[:, 1:].numel() for batch in several)
            factor = positions / pending.targets
            plant.effect(factor != 1.0)
            return replace(metrics, tokens_per_sec=metrics.tokens_per_sec * factor)

        return measured

    plant.patch("trainer.run.loop:measured", make)


@defect(
    "fabricated-utilisation",
    kind=PROTOCOL,
    imitates="the seed: gpu_util_pct is 50 with random jitter",
    symptom="a utilisation that nothing measured",
    hidden="it is a plausible figure",
)
def fabricated_utilisation(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _MadeUpUtilisation)


@defect(
    "fabricated-utilisation-in-sampler",
    kind=SOURCE,
    imitates="the seed: gpu_util_pct is 50 with random jitter",
    symptom="the sampler returns 50 with jitter instead of asking the driver",
    hidden="it is a plausible figure",
)
def fabricated_utilisation_in_sampler(plant: Plant) -> None:
    """Return a made-up sample."""
    import random

    generator = random.Random(0)

    def make(original: Any) -> Any:
        def read(sampler: Any) -> Any:
            clean = original(sampler)
            percent = 50.0 + generator.uniform(-5, 5)
            plant.effect(percent != clean.percent)
            return type(clean)(percent, None, 0.0)

        return read

    plant.patch("trainer.run.gpu_sampler:GpuSampler.read", make)


@defect(
    "utilisation-absent-without-reason",
    kind=PROTOCOL,
    imitates="an exception swallowed around the driver call",
    symptom="utilisation is absent and nothing says why",
    hidden="an empty column draws no attention",
)
def utilisation_absent_without_reason(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _UnexplainedUtilisation)
