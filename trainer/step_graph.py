"""Optimizer steps and evaluations as CUDA graphs.

A step of a small model is a thousand kernels of a few microseconds, which the host cannot launch as
fast as the device runs them. A graph is launched as one. It reads its tokens from, and leaves its
results in, tensors that stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainer.batch import TokenBatch

if TYPE_CHECKING:
    from trainer.trainer import PretrainTrainer

WARM_UPS = 3
"""Launches before a capture: compilation, kernel selection and workspaces happen in the first."""


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    tokens: list[Tensor]
    results: tuple[Tensor, ...]
    kept: list[Tensor] = field(default_factory=list)
    """What the graph reads and writes by address, and nothing else refers to."""

    def replay(self, micro_batches: Sequence[TokenBatch]) -> tuple[Tensor, ...]:
        for static, batch in zip(self.tokens, micro_batches, strict=True):
            static.copy_(batch.tokens, non_blocking=True)
        self.graph.replay()
        return self.results


class StepGraphs:
    """The graphs of one shape of step and one of evaluation: the first that is asked for.

    Whatever has another shape, or masks targets, is executed without a graph.
    """

    def __init__(self, trainer: PretrainTrainer) -> None:
        self._trainer = trainer
        self._shapes: dict[str, list[torch.Size]] = {}
        self._captured: dict[str, _Captured] = {}

    def fits(self, kind: str, micro_batches: Sequence[TokenBatch]) -> bool:
        """Whether the graph of `kind`, ``step`` or ``evaluation``, takes `micro_batches`."""
        if any(batch.target_mask is not None for batch in micro_batches):
            return False
        shape = [batch.tokens.shape for batch in micro_batches]
        return self._shapes.setdefault(kind, shape) == shape

    def step(self, micro_batches: Sequence[TokenBatch]) -> tuple[Tensor, Tensor]:
        """Take one step: mean loss and gradient norm, scalars that the next step overwrites."""
        if "step" not in self._captured:
            self._captured["step"] = self._capture_step(micro_batches)
        loss, norm = self._captured["step"].replay(micro_batches)
        return loss, norm

    def evaluation(self, batch: TokenBatch) -> Tensor:
        """Summed loss of `batch`, a scalar that the next evaluation overwrites."""
        if "evaluation" not in self._captured:

            def total(batches: Sequence[TokenBatch]) -> tuple[Tensor, ...]:
                return (self._trainer.summed_loss(batches[0]),)

            self._captured["evaluation"] = self._capture([batch], total, total)
        return self._captured["evaluation"].replay([batch])[0]

    def _capture_step(self, micro_batches: Sequence[TokenBatch]) -> _Captured:
        trainer = self._trainer
        targets = sum(batch.target_count() for batch in micro_batches)
        captured = self._capture(
            micro_batches, trainer.warm_up, lambda batches: trainer.whole_step(batches, targets)
        )
        captured.kept += trainer.optimizer.hand_over_tables()
        captured.kept += [p.grad for p in trainer.model.parameters() if p.grad is not None]
        trainer.optimizer.zero_grad(set_to_none=True)
        return captured

    def _capture(
        self,
        micro_batches: Sequence[TokenBatch],
        warm_up: Callable[[Sequence[TokenBatch]], object],
        work: Callable[[Sequence[TokenBatch]], tuple[Tensor, ...]],
    ) -> _Captured:
        device = self._trainer.device
        tokens = [batch.tokens.to(device, copy=True) for batch in micro_batches]
        batches = [TokenBatch(static) for static in tokens]
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                warm_up(batches)
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = work(batches)
        return _Captured(graph, tokens, results)
