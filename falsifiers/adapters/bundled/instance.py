"""A `PretrainTrainer` behind the protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from falsifiers.adapters.bundled.conversions import refusals, token_batch
from falsifiers.adapters.bundled.tracer import Tracer
from falsifiers.subject import (
    Batch,
    Configuration,
    OperatorRecord,
    RunResult,
    StepMetrics,
    micro_batches,
)
from falsifiers.subject_parts import Generated, Moments, Provenance, Sampling
from trainer import generate, schedule
from trainer import trainer as trainer_module
from trainer.checkpoint import position, restore, writer
from trainer.run import guards, loop
from trainer.run.gpu_sampler import GpuSampler

if TYPE_CHECKING:
    from falsifiers.subject import GradientHook


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
        with refusals():
            return self._trainer.logits(tokens)

    def loss_and_gradients(self, batch: Batch) -> tuple[float, Mapping[str, Tensor]]:
        """See the protocol."""
        with refusals():
            return self._trainer.loss_and_gradients(token_batch(batch))

    def train_step(self, batch: Batch | Sequence[Batch], *, lr: float | None = None) -> StepMetrics:
        """See the protocol."""
        rate = self._trainer.lr if lr is None else lr
        batches = [token_batch(one) for one in micro_batches(batch)]
        with refusals(), GpuSampler(self._trainer.device) as sampler:
            metrics = loop.measured_step(self._trainer, batches, rate, sampler)
        fields = asdict(metrics)
        fields.pop("gpu_util_age_s")
        return StepMetrics(**fields)

    def evaluate(self, batches: Sequence[Batch]) -> float:
        """See the protocol."""
        with refusals():
            return self._trainer.evaluate([token_batch(batch) for batch in batches])

    def training(self) -> bool:
        """See the protocol."""
        return self._trainer.model.training

    def trace(self, batch: Batch) -> Sequence[OperatorRecord]:
        """See the protocol."""
        return Tracer(self._trainer).trace(token_batch(batch))

    def run(
        self,
        batches: Iterable[Batch],
        *,
        steps: int,
        log: Path,
        before_step: Callable[[int], None] | None = None,
        first_step: int = 0,
        min_tokens_per_sec: float | None = None,
    ) -> RunResult:
        """See the protocol. The guard is asked once a step, as a session asks it."""
        throughput = guards.ThroughputGuard(min_tokens_per_sec)
        outcome = loop.run_steps(
            self._trainer,
            (token_batch(batch) for batch in batches),
            steps=steps,
            first_step=first_step,
            log_path=log,
            before_step=before_step,
            on_metrics=lambda metrics: throughput.add(metrics.tokens_per_sec),
        )
        lines = log.read_text(encoding="utf-8").splitlines()
        return RunResult(outcome.status, outcome.message, [json.loads(line) for line in lines])

    def on_gradient(self, name: str, hook: GradientHook) -> None:
        """See the protocol."""
        parameter = dict(self._trainer.model.named_parameters())[name]
        parameter.register_hook(hook)  # type: ignore[no-untyped-call]

    def optimizer_state(self) -> Mapping[str, Moments]:
        """See the protocol."""
        own = self._trainer.optimizer.state
        return {
            name: Moments(own[p]["exp_avg"], own[p]["exp_avg_sq"], int(own[p]["step"]))
            for name, p in self._trainer.parameters.items()
        }

    def save_checkpoint(self, path: Path, provenance: Provenance) -> None:
        """See the protocol."""
        with self.saving(provenance) as save:
            save(path)

    @contextmanager
    def saving(self, provenance: Provenance) -> Iterator[Callable[[Path], None]]:
        """See the protocol."""
        settings = self._settings(provenance)

        def save(path: Path) -> None:
            step = self._trainer.step
            here = position.TrainingPosition(step, epoch=0, tokens_seen=0, settings=settings)
            with refusals():
                checkpoints.save(self._trainer, here, path)

        with refusals(), writer.CheckpointWriter() as checkpoints:
            yield save

    def load_checkpoint(self, path: Path, provenance: Provenance) -> int:
        """See the protocol."""
        with refusals():
            found = restore.restore(self._trainer, path, self._settings(provenance))
        return found.data_batch_idx

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling | None = None
    ) -> Generated:
        """See the protocol."""
        how = None if sampling is None else generate.Sampling(**asdict(sampling))
        with refusals():
            made = generate.generate(self._trainer.model, prompt, max_new_tokens, how)
        return Generated(made.ids, made.tokens_per_second)

    def _settings(self, provenance: Provenance) -> position.RunSettings:
        return position.RunSettings(
            seed=provenance.seed,
            accumulation=provenance.accumulation,
            micro_batch_size=1,
            seq_length=1,
            world_size=1,
            steps_per_epoch=1,
            compute_dtype=self._trainer.compute_dtype,
            dataset_sha256=provenance.dataset_sha256,
            schedule=schedule.WarmupCosine(self._trainer.lr, 0, 1),
        )
