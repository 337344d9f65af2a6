"""What a model is: its architecture, field by field, and how many parameters that makes.

Imports no torch, so that a command line can refuse a configuration in milliseconds.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from trainer.errors import ArchitectureError

DECODER_ARCHITECTURES = ("llama", "qwen2")
"""Families whose decoder this trainer implements: pre-norm, RMSNorm, RoPE, grouped-query SwiGLU."""

_SIZES = (
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)


LARGEST_SIZE = 2**31 - 1
"""Of any one size: what every format and every index in a kernel can hold."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a decoder-only language model.

    `architecture` may name a family that cannot be trained here, so that a file of that family
    can be described; `require_decoder` refuses it. ``num_heads * head_dim`` need not equal
    `hidden_size`. `attention_bias` adds biases to the q, k and v projections only (Qwen2).

    Raises:
        ArchitectureError: naming the field and its value.
    """

    architecture: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    attention_bias: bool
    tie_word_embeddings: bool

    def __post_init__(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArchitectureError(f"{name} must be a positive integer, not {value!r}")
            if value > LARGEST_SIZE:
                raise ArchitectureError(f"{name} must be at most {LARGEST_SIZE}")
        for name in ("rope_theta", "rms_norm_eps"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 < value <= sys.float_info.max):
                raise ArchitectureError(f"{name} must be finite and positive, not {value!r}")
        for name in ("attention_bias", "tie_word_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ArchitectureError(
                    f"{name} must be true or false, not {getattr(self, name)!r}"
                )
        if self.num_heads % self.num_kv_heads:
            raise ArchitectureError(
                f"num_kv_heads {self.num_kv_heads} does not divide num_heads {self.num_heads}"
            )
        if self.head_dim % 2:
            raise ArchitectureError(
                f"head_dim must be even for rotary embeddings, not {self.head_dim}"
            )


LLAMA_370M = ModelConfig(
    architecture="llama",
    hidden_size=1024,
    num_layers=24,
    num_heads=16,
    num_kv_heads=4,
    head_dim=64,
    intermediate_size=2816,
    vocab_size=50257,
    max_position_embeddings=4096,
    rope_theta=10000.0,
    rms_norm_eps=1e-5,
    attention_bias=False,
    tie_word_embeddings=True,
)

QWEN2_0_5B = ModelConfig(
    architecture="qwen2",
    hidden_size=896,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    head_dim=64,
    intermediate_size=4864,
    vocab_size=151936,
    max_position_embeddings=32768,
    rope_theta=1000000.0,
    rms_norm_eps=1e-6,
    attention_bias=True,
    tie_word_embeddings=True,
)

NAMED = {"llama-370m": LLAMA_370M, "qwen2-0.5b": QWEN2_0_5B}


def require_decoder(config: ModelConfig) -> None:
    """Refuse a configuration whose family is not a decoder that this trainer implements.

    Raises:
        ArchitectureError: naming the family.
    """
    require_decoder_family(config.architecture, "the model configuration")


def require_decoder_family(family: str, source: str) -> None:
    """Refuse a family that is not a decoder; `source` says where it was declared.

    Raises:
        ArchitectureError: naming the family and the source.
    """
    if family not in DECODER_ARCHITECTURES:
        raise ArchitectureError(
            f"FALSIFY-APR-PRETRAIN-ARCH-007, FALSIFY-APR-PRETRAIN-INIT-001: {source}: architecture "
            f"{family!r} is not a decoder-only model that can be pre-trained here (encoders are "
            f"refused); use one of {', '.join(DECODER_ARCHITECTURES)}"
        )


def stored_parameters(config: ModelConfig) -> int:
    """Scalars that are stored and trained. A tied head is the embedding and counts once."""
    hidden = config.hidden_size
    query = config.num_heads * config.head_dim
    key_value = 2 * config.num_kv_heads * config.head_dim
    attention = hidden * (query + key_value) + query * hidden
    bias = query + key_value if config.attention_bias else 0
    mlp = 3 * hidden * config.intermediate_size
    layer = attention + bias + mlp + 2 * hidden
    embedding = config.vocab_size * hidden
    head = 0 if config.tie_word_embeddings else embedding
    return embedding + config.num_layers * layer + hidden + head


def nominal_parameters(config: ModelConfig) -> int:
    """The count by which models are named: the head is counted even where it is tied."""
    tied = config.vocab_size * config.hidden_size if config.tie_word_embeddings else 0
    return stored_parameters(config) + tied
