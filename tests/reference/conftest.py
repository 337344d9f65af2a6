"""transformers as an independent judge of the oracle, run in float64 throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

VOCAB, MASKED = 61, -100


class _NothingNarrower(TorchFunctionMode):
    """Reads every request for float32 as float64.

    transformers computes RMSNorm, RoPE and the loss in float32 whatever the model's dtype, so
    that its float64 model agrees with float64 arithmetic to seven digits only. Its code runs
    unchanged under this mode, and agrees to float64 rounding.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        widen = {torch.float32: torch.float64}.get
        args = tuple(widen(a, a) if isinstance(a, torch.dtype) else a for a in args)
        named = {
            k: widen(v, v) if isinstance(v, torch.dtype) else v for k, v in (kwargs or {}).items()
        }
        return func(*args, **named)


@dataclass
class Judge:
    """A transformers model in float64 with random parameters, and the same for the oracle."""

    config: dict[str, Any]
    model: Any

    @property
    def parameters(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def logits(self, tokens: Tensor) -> Tensor:
        with torch.no_grad(), _NothingNarrower():
            return self.model(input_ids=tokens, use_cache=False).logits

    def loss(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """transformers' own shifted loss; it leaves out targets that are `MASKED`."""
        labels = tokens.clone()
        if mask is not None:
            labels[:, 1:] = labels[:, 1:].masked_fill(~mask, MASKED)
        with _NothingNarrower():
            return self.model(input_ids=tokens, labels=labels, use_cache=False).loss


def _configuration(architecture: str, tied: bool) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "hidden_size": 28,
        "num_layers": 3,
        "num_heads": 7,
        "num_kv_heads": 1 if architecture == "qwen2" else 7,
        "head_dim": 4,
        "intermediate_size": 40,
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
        "rope_theta": 5000.0,
        "rms_norm_eps": 1e-3,
        "attention_bias": architecture == "qwen2",
        "tie_word_embeddings": tied,
    }


def _grouped_llama(tied: bool) -> dict[str, Any]:
    return _configuration("llama", tied) | {
        "hidden_size": 24,
        "num_heads": 6,
        "num_kv_heads": 2,
        "head_dim": 8,
    }


CONFIGURATIONS = {
    "llama-full-attention-untied": _configuration("llama", tied=False),
    "llama-grouped-wide-heads-tied": _grouped_llama(tied=True),
    "llama-grouped-wide-heads-untied": _grouped_llama(tied=False),
    "qwen2-biases-tied": _configuration("qwen2", tied=True),
    "qwen2-biases-untied": _configuration("qwen2", tied=False),
}


def _judge(config: dict[str, Any]) -> Judge:
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    kinds = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }
    config_class, model_class = kinds[config["architecture"]]
    settings = config_class(
        hidden_size=config["hidden_size"],
        num_hidden_layers=config["num_layers"],
        num_attention_heads=config["num_heads"],
        num_key_value_heads=config["num_kv_heads"],
        head_dim=config["head_dim"],
        intermediate_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        max_position_embeddings=config["max_position_embeddings"],
        rope_parameters={"rope_type": "default", "rope_theta": config["rope_theta"]},
        rms_norm_eps=config["rms_norm_eps"],
        tie_word_embeddings=config["tie_word_embeddings"],
        attn_implementation="eager",
    )
    with _NothingNarrower():
        model = model_class(settings).double()
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        # Large enough that every bias, norm and mask moves the loss; norms stay around one.
        noise = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = 1 + noise if "norm" in name else noise
    return Judge(config, model)


@pytest.fixture(params=CONFIGURATIONS)
def judge(request: pytest.FixtureRequest) -> Judge:
    return _judge(CONFIGURATIONS[request.param])
