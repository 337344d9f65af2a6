"""transformers' models with torch's AdamW: what a trainer is held against by others.

Weights come from transformers' own initialisation, and are copied into the trainer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn.functional import cross_entropy

import falsifiers
from benchmarks.compared.seed import OFFSET
from falsifiers.subject import Batch, Configuration, Instance, Subject
from falsifiers.weight_files import hugging_face_config

CPU = "cpu"
_TEXT = Path(falsifiers.__file__).parent / "texts" / "wikipedia.txt"
_CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
}
BETAS, EPS, DECAY, CLIP = (0.9, 0.95), 1e-8, 0.1, 1.0
"""The recipe that the trainer documents; both sides of a comparison use it."""


def configuration(architecture: str, **fields: Any) -> dict[str, Any]:
    """A tiny configuration, Llama's or Qwen2's by what is customary for each."""
    qwen = architecture == "qwen2"
    return {
        "architecture": architecture,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "intermediate_size": 96,
        "vocab_size": 256,
        "max_position_embeddings": 512,
        "rope_theta": 1000000.0 if qwen else 10000.0,
        "rms_norm_eps": 1e-6 if qwen else 1e-5,
        "attention_bias": qwen,
        "tie_word_embeddings": qwen,
        **fields,
    }


class Reference:
    """A ``…ForCausalLM`` as transformers initialises it, with AdamW and clipping in plain torch.

    Args:
        config: the architecture.
        dtype: ``bfloat16`` computes under autocast, with float32 weights, as the trainer does.
        deviation: transformers' ``initializer_range``.
        attention: transformers' ``attn_implementation``.
    """

    def __init__(
        self,
        config: Configuration,
        *,
        dtype: str = "float32",
        seed: int = 42,
        deviation: float = 0.02,
        attention: str = "sdpa",
    ) -> None:
        config_class, model_class = _CLASSES[config["architecture"]]
        torch.manual_seed(seed + OFFSET)
        fields = {**hugging_face_config(config), "initializer_range": deviation}
        self.config = config
        self.model = model_class(config_class(**fields, attn_implementation=attention))
        self._reduced = dtype == "bfloat16"
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAY},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, betas=BETAS, eps=EPS)

    def weights(self) -> dict[str, Tensor]:
        """Copies of the parameters by name."""
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def logits(self, tokens: Tensor) -> Tensor:
        """``[batch, length, vocab]``."""
        with torch.autocast(CPU, torch.bfloat16, enabled=self._reduced):
            result: Tensor = self.model(tokens, use_cache=False).logits
        return result

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss over the targets that count, nats."""
        logits = self.logits(batch.tokens[:, :-1]).float()
        targets = batch.tokens[:, 1:]
        if batch.target_mask is not None:
            targets = targets.masked_fill(~batch.target_mask, -100)
        return cross_entropy(logits.flatten(0, 1), targets.flatten())

    def step(self, batch: Batch, lr: float) -> float:
        """One step of training; returns the loss."""
        loss = self.loss(batch)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        return loss.item()


def trainer_with(
    subject: Subject, config: Configuration, weights: Mapping[str, Tensor], **options: Any
) -> Instance:
    """The trainer's model with the same weights, on the CPU."""
    chosen = {"dtype": "float32", "seed": 42, **options}
    instance = subject.build(config, device=CPU, **chosen)
    instance.set_parameters(weights)
    return instance


def text_batches(count: int, batch: int, length: int) -> list[Batch]:
    """Consecutive windows of an English text, by bytes."""
    ids = torch.frombuffer(bytearray(_TEXT.read_bytes()), dtype=torch.uint8).long()
    size = batch * length
    skipped = 1000 * OFFSET
    starts = [(skipped + i * size) % (len(ids) - size - 1) for i in range(count)]
    windows = [
        torch.stack([ids[s + r * length : s + (r + 1) * length + 1] for r in range(batch)])
        for s in starts
    ]
    return [Batch(window) for window in windows]


def deviation_as_wide(hidden: int, of: int, deviation: float = 0.02) -> float:
    """The deviation that gives matrices of `hidden` columns the gain that `of` columns have."""
    return deviation * math.sqrt(of / hidden)
