"""Hugging Face's own model with torch's own AdamW: an opinion beside trainer and oracle.

Importing transformers takes about two seconds, once a process: it is put off to the first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from falsifiers.adapters.transformers_models import TransformersInstance
from falsifiers.subject import Batch


class TransformersPeer(TransformersInstance):
    """A ``…ForCausalLM`` of given weights in float32.

    Args:
        config: the architecture.
        weights: every parameter by Hugging Face name.
        device: where to compute.

    Raises:
        ValueError: the weights are not exactly the model's.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, Tensor], device: str
    ) -> None:
        super().__init__(config, device, "float32", lr=0.0)
        names = self.parameters().keys()
        if names != weights.keys():
            raise ValueError(f"only one side has {sorted(names ^ weights.keys())[:5]}")
        self.set_parameters(weights)

    def _summed_loss(self, batch: Batch) -> Tensor:
        # From the logits on in float64: torch's float32 log-softmax on a CPU is biased, by which
        # late norms' gradients of a real model were 5e-4 off, thirty times what the model adds.
        logits = self._forward(batch.tokens[:, :-1]).double()
        targets = batch.tokens[:, 1:].to(logits.device)
        if batch.target_mask is not None:
            counting = batch.target_mask.to(logits.device)
            logits, targets = logits[counting][None], targets[counting][None]
        return cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


class Optimization:
    """Steps of `torch.optim.AdamW` after `torch.nn.utils.clip_grad_norm_`, `decay` on matrices."""

    def __init__(
        self,
        peer: TransformersPeer,
        *,
        betas: tuple[float, float],
        eps: float,
        decay: float,
        clip: float,
    ) -> None:
        self._peer, self._clip = peer, clip
        self._parameters = dict(peer.parameters())
        vectors = [p for p in self._parameters.values() if p.ndim == 1]
        matrices = [p for p in self._parameters.values() if p.ndim > 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}],
            betas=betas,
            eps=eps,
        )

    def step(self, batch: Batch, lr: float) -> tuple[float, float]:
        """One step at rate `lr`. Returns the loss and the gradient norm before clipping."""
        loss, gradients = self._peer.loss_and_gradients(batch)
        for name, parameter in self._parameters.items():
            parameter.grad = gradients[name]
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        return loss, norm.item()
