"""One optimizer step, and an evaluation that leaves no trace.

The mean loss is the sum of token losses over the number of target tokens, across micro-batches and
in evaluation alike; a mean of batch means is wrong as soon as batches differ in size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from trainer import batch as batches_of_tokens
from trainer import execution, gradients, optimizer, precision
from trainer.batch import TokenBatch
from trainer.config import ModelConfig
from trainer.errors import ConfigurationError, DeviceUnavailable, NumericalInstability
from trainer.execution import EAGER, Execution
from trainer.loss import LinearCrossEntropy
from trainer.model import init
from trainer.model.decoder import Decoder
from trainer.parallel.parallelism import Parallelism
from trainer.pending import PendingStep, Reading, StepResult
from trainer.step_graph import StepGraphs


class PretrainTrainer:
    """A freshly initialised model with its optimizer on one device.

    Args:
        config: the architecture.
        device: ``cpu`` or ``cuda:N``, as `device.resolve_device` returns it.
        compute_dtype: dtype of activations, ``float32`` or ``bfloat16``.
        seed: seeds the initial weights.
        lr: learning rate of steps that name none.
        how: eager or compiled, and whether bitwise reproducible.
        parallel: how the ranks of the run share each step; None is a single process.

    Attributes:
        parameters: by name, what the optimizer updates: the model's own, or this rank's parts.
        step: optimizer steps done.

    Raises:
        ArchitectureError: `config` is not a decoder.
        DeviceUnavailable: this build of torch cannot use `device`.
    """

    def __init__(
        self,
        config: ModelConfig,
        device: str,
        compute_dtype: str,
        seed: int,
        lr: float,
        how: Execution = EAGER,
        parallel: Parallelism | None = None,
    ) -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise DeviceUnavailable(
                f"torch {torch.__version__} cannot use {device!r}; install a torch build with CUDA"
            )
        self.config = config
        self.compute_dtype = compute_dtype
        self.lr = lr
        self.step = 0
        with torch.device(device):
            self.model = Decoder(config, precision.compute_dtype_named(compute_dtype))
        init.initialize(self.model, seed)
        self.loss = LinearCrossEntropy()
        self.parallel = parallel or Parallelism()
        self.parameters = self.parallel.adopt(self.model)
        self.optimizer = optimizer.build_optimizer(nn.ParameterList(self.parameters.values()), lr)
        self._halted = torch.zeros((), dtype=torch.bool, device=self.device)
        execution.prepare(self.model, how)
        graphed = how.compiled and self.device.type == "cuda" and self.parallel.world.size == 1
        self._graphs = StepGraphs(self) if graphed else None

    @property
    def device(self) -> torch.device:
        """Where the parameters really lie."""
        return self.model.head_weight.device

    def launch_step(
        self, micro_batches: Sequence[TokenBatch], lr: float | None = None
    ) -> PendingStep:
        """Start one optimizer step over all of `micro_batches`, at `lr` or the trainer's own rate.

        On CUDA this returns before the device is done, and never waits for it.

        Raises:
            ConfigurationError: no target of any batch counts.
        """
        targets = self._targets_of_all_ranks(micro_batches)
        rate = self.lr if lr is None else lr
        self.model.train()
        self.optimizer.set_rate(rate)
        if self._graphs is not None and self._graphs.fits("step", micro_batches):
            loss, norm = self._graphs.step(micro_batches)
        else:
            loss, norm = self.whole_step(micro_batches, targets)
            self.optimizer.zero_grad(set_to_none=True)
        pending = PendingStep(
            self.step, rate, targets, Reading(loss, norm, self._halted), self._check
        )
        self.step += 1
        return pending

    def train_batch(self, batch: TokenBatch, lr: float | None = None) -> float:
        """Take one optimizer step and wait for it. Returns the mean loss, nats.

        Raises:
            NumericalInstability: loss or gradient norm is NaN or infinite. No weight has moved.
            ConfigurationError: no target of `batch` counts.
        """
        return self.launch_step([batch], lr).result().loss

    def whole_step(
        self, micro_batches: Sequence[TokenBatch], targets: int
    ) -> tuple[Tensor, Tensor]:
        """Everything a step does on the device: mean loss and gradient norm, as scalars there.

        Gradients are left in place; the caller drops them.
        """
        loss = self._backward(micro_batches, targets)
        norm = self.parallel.joint_norm(gradients.global_norm(self.parameters.values()))
        self._halted |= ~gradients.is_usable(loss, norm)
        self.optimizer.step(gradients.clip_coefficient(norm), self._halted)
        return loss, norm

    def summed_loss(self, batch: TokenBatch) -> Tensor:
        """Sum of the token losses of `batch` in nats, a float32 scalar with its gradient."""
        inputs, targets = batches_of_tokens.shift(batch.tokens.to(self.device, non_blocking=True))
        mask = batch.target_mask
        with precision.ieee_float32():
            total: Tensor = self.loss(
                self.model(inputs).flatten(0, 1),
                self.model.head_weight,
                targets.flatten(),
                None if mask is None else mask.to(self.device, non_blocking=True).flatten(),
            )
        return total

    def loss_and_gradients(self, batch: TokenBatch) -> tuple[float, dict[str, Tensor]]:
        """Mean training loss of `batch` and its unclipped float32 gradients by parameter name.

        Raises:
            ConfigurationError: no target of `batch` counts.
        """
        loss = self._backward([batch], self._targets_of_all_ranks([batch]))
        found = {n: p.grad for n, p in self.parameters.items() if p.grad is not None}
        found = {n: self.parallel.whole(g) for n, g in self.parallel.spread(found).items()}
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item(), found

    def eval_batch(self, batch: TokenBatch) -> tuple[Tensor, int]:
        """Sum of token losses in nats, a scalar on the device, and how many targets it covers.

        Leaves mode, random state, gradients and weights as they were.
        """
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                if self._graphs is not None and self._graphs.fits("evaluation", [batch]):
                    total = self._graphs.evaluation(batch).clone()
                else:
                    total = self.summed_loss(batch)
        finally:
            self.model.train(was_training)
            self.parallel.after_inference()
        return total, batch.target_count()

    def evaluate(self, batches: Iterable[TokenBatch]) -> float:
        """Held-out loss: sum of token losses over the number of target tokens, nats.

        Raises:
            ConfigurationError: there is no target to score.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        count = 0
        for batch in self.parallel.share_of(batches):
            batch_total, batch_count = self.eval_batch(batch)
            total += batch_total
            count += batch_count
        total = self.parallel.sum_up(total)
        count = self.parallel.ranks.total(count)
        if count == 0:
            raise ConfigurationError("the held-out set has no target token; give it more text")
        return total.item() / count

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits ``[B, T, vocab]`` in the compute dtype for int64 ``[B, T]``, without gradient."""
        with torch.no_grad(), precision.ieee_float32():
            return self.model.logits(tokens.to(self.device))

    def warm_up(self, micro_batches: Sequence[TokenBatch]) -> None:
        """Compile and tune everything that a step runs, without changing any state."""
        halted = self._halted.clone()
        self._halted.fill_(True)
        targets = sum(batch.target_count() for batch in micro_batches)
        self.whole_step(micro_batches, targets)
        self.optimizer.zero_grad(set_to_none=True)
        self._halted.copy_(halted)

    def _backward(self, micro_batches: Sequence[TokenBatch], targets: int) -> Tensor:
        mean = torch.zeros((), dtype=torch.float32, device=self.device)
        for number, batch in enumerate(micro_batches, 1):
            loss = self.summed_loss(batch) / targets
            if number == len(micro_batches):
                self.parallel.before_last_backward()
            with precision.ieee_float32():
                loss.backward()  # type: ignore[no-untyped-call]
            mean += loss.detach()
        return self.parallel.finish(mean)

    def _targets_of_all_ranks(self, micro_batches: Sequence[TokenBatch]) -> int:
        count = sum(batch.target_count() for batch in micro_batches)
        targets = self.parallel.ranks.total(count)
        if targets == 0:
            raise ConfigurationError("no target of the batch counts; its target_mask is all False")
        return targets

    def _check(self, step: int, result: StepResult) -> None:
        try:
            self._guard(result.loss, result.grad_norm, step)
            if not result.taken:
                raise NumericalInstability(
                    f"INV-TRAIN-007: step {step} was not taken, because a step before it was not "
                    "finite; go on from a checkpoint"
                )
        except NumericalInstability:
            self.step = step
            raise

    def _guard(self, loss: float, grad_norm: float, step: int) -> None:
        if math.isfinite(loss) and math.isfinite(grad_norm):
            return
        raise NumericalInstability(
            f"INV-TRAIN-007: step {step}: loss {loss}, gradient norm {grad_norm}; "
            "the step was not taken"
        )
