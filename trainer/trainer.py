"""One optimizer step, and an evaluation that leaves no trace.

The mean loss is the sum of token losses over the number of target tokens, in training and in
evaluation alike; a mean of batch means is wrong as soon as batches differ in size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from trainer import batch as batches_of_tokens
from trainer import gradients, optimizer, precision
from trainer.batch import TokenBatch
from trainer.config import ModelConfig
from trainer.errors import ConfigurationError, DeviceUnavailable, NumericalInstability
from trainer.loss import LinearCrossEntropy
from trainer.model import init
from trainer.model.decoder import Decoder


class PretrainTrainer:
    """A freshly initialised model with its optimizer on one device.

    Args:
        config: the architecture.
        device: ``cpu`` or ``cuda:N``, as `device.resolve_device` returns it.
        compute_dtype: dtype of activations, ``float32`` or ``bfloat16``.
        seed: seeds the initial weights.
        lr: learning rate of steps that name none.

    Attributes:
        step: optimizer steps done.

    Raises:
        ArchitectureError: `config` is not a decoder.
        DeviceUnavailable: this build of torch cannot use `device`.
    """

    def __init__(
        self, config: ModelConfig, device: str, compute_dtype: str, seed: int, lr: float
    ) -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise DeviceUnavailable(
                f"torch {torch.__version__} cannot use {device!r}; install a torch build with CUDA"
            )
        self.config = config
        self.compute_dtype = compute_dtype
        self.lr = lr
        self.step = 0
        self._last_grad_norm: float | None = None
        with torch.device(device):
            self.model = Decoder(config, precision.compute_dtype_named(compute_dtype))
        init.initialize(self.model, seed)
        self.loss = LinearCrossEntropy()
        self.optimizer = optimizer.build_optimizer(self.model, lr)

    @property
    def device(self) -> torch.device:
        """Where the parameters really lie."""
        return self.model.head_weight.device

    def train_batch(self, batch: TokenBatch, lr: float | None = None) -> float:
        """Take one optimizer step, at `lr` or the trainer's own rate. Returns the mean loss, nats.

        Raises:
            NumericalInstability: loss or gradient norm is NaN or infinite. No weight has moved.
            ConfigurationError: no target of `batch` counts.
        """
        self.model.train()
        inputs, targets = batches_of_tokens.shift(batch.tokens)
        loss, norm = self._backward(inputs, targets, batch)
        self._last_grad_norm = norm.item()
        mean_loss = loss.item()
        self._guard(mean_loss, self._last_grad_norm)
        gradients.clip(self.model.parameters(), norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr if lr is None else lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return mean_loss

    def last_grad_norm(self) -> float | None:
        """Global L2 norm of the last step's gradient before clipping; None before any step."""
        return self._last_grad_norm

    def loss_and_gradients(self, batch: TokenBatch) -> tuple[float, dict[str, Tensor]]:
        """Mean training loss of `batch` and its unclipped float32 gradients by parameter name."""
        inputs, targets = batches_of_tokens.shift(batch.tokens)
        loss, _ = self._backward(inputs, targets, batch)
        found = {
            name: parameter.grad
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item(), found

    def eval_batch(self, batch: TokenBatch) -> tuple[float, int]:
        """Sum of token losses in nats, and how many targets it covers.

        Leaves mode, random state, gradients and weights as they were.
        """
        was_training = self.model.training
        self.model.eval()
        inputs, targets = batches_of_tokens.shift(batch.tokens)
        try:
            with torch.no_grad():
                total = self._summed_loss(inputs, targets, batch.target_mask)
        finally:
            self.model.train(was_training)
        return total.item(), batch.target_count()

    def evaluate(self, batches: Iterable[TokenBatch]) -> float:
        """Held-out loss: sum of token losses over the number of target tokens, nats.

        Raises:
            ConfigurationError: there is no target to score.
        """
        total, count = 0.0, 0
        for batch in batches:
            batch_total, batch_count = self.eval_batch(batch)
            total += batch_total
            count += batch_count
        if count == 0:
            raise ConfigurationError("the held-out set has no target token; give it more text")
        return total / count

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits ``[B, T, vocab]`` in the compute dtype for int64 ``[B, T]``, without gradient."""
        with torch.no_grad(), precision.ieee_float32():
            return self.model.logits(tokens.to(self.device))

    def _backward(
        self, inputs: Tensor, targets: Tensor, batch: TokenBatch
    ) -> tuple[Tensor, Tensor]:
        count = batch.target_count()
        if count == 0:
            raise ConfigurationError("no target of the batch counts; its target_mask is all False")
        loss = self._summed_loss(inputs, targets, batch.target_mask) / count
        with precision.ieee_float32():
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), gradients.global_norm(self.model.parameters())

    def _summed_loss(self, inputs: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        with precision.ieee_float32():
            hidden = self.model(inputs.to(self.device))
            total: Tensor = self.loss(
                hidden.flatten(0, 1),
                self.model.head_weight,
                targets.to(self.device).flatten(),
                None if mask is None else mask.to(self.device).flatten(),
            )
        return total

    def _guard(self, loss: float, grad_norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(grad_norm):
            return
        self.optimizer.zero_grad(set_to_none=True)
        raise NumericalInstability(
            f"INV-TRAIN-007: step {self.step}: loss {loss}, gradient norm {grad_norm}; "
            "the step was not taken"
        )
