"""The pre-norm decoder. Parameters carry their Hugging Face names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer import config as configurations
from trainer.config import ModelConfig
from trainer.model import rope
from trainer.model.attention import Attention
from trainer.model.embedding import Embedding
from trainer.model.linear import Linear
from trainer.model.mlp import SwiGLU
from trainer.model.rmsnorm import RMSNorm


class Residual(nn.Module):
    """The residual stream: what a sublayer computed is added to what it read."""

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        """Two ``[B, T, C]`` -> ``[B, T, C]``."""
        return stream + update


class DecoderLayer(nn.Module):
    """Attention, then the feed-forward network, each on a normalised copy of the stream.

    The layer before hands over its last update instead of adding it, so that a compiler can fuse
    the addition with the normalisation that reads its result.
    """

    def __init__(self, config: ModelConfig, tables: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.input_residual = Residual()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, tables)
        self.attention_residual = Residual()
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, stream: Tensor, update: Tensor | None) -> tuple[Tensor, Tensor]:
        """``[B, T, C]`` each -> the stream so far, and what is still to be added to it."""
        if update is not None:
            stream = self.input_residual(stream, update)
        stream = self.attention_residual(stream, self.self_attn(self.input_layernorm(stream)))
        return stream, self.mlp(self.post_attention_layernorm(stream))


class DecoderStack(nn.Module):
    """Embedding, layers and final norm: tokens to the hidden states that the head reads."""

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype) -> None:
        super().__init__()
        tables = rope.rope_tables(
            config.head_dim, config.rope_theta, config.max_position_embeddings
        )
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, compute_dtype)
        self.layers = nn.ModuleList(DecoderLayer(config, tables) for _ in range(config.num_layers))
        self.last_residual = Residual()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 ``[B, T]`` -> ``[B, T, C]``."""
        stream, update = self.embed_tokens(tokens), None
        for layer in self.layers:
            stream, update = layer(stream, update)
        return self.norm(self.last_residual(stream, update))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """A decoder-only language model. Parameters are uninitialised until `init.initialize`.

    Args:
        config: the architecture.
        compute_dtype: dtype of activations, float32 or bfloat16. Parameters are float32 always.

    Raises:
        ArchitectureError: `config` is not a decoder.
    """

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        configurations.require_decoder(config)
        self.config = config
        self.model = DecoderStack(config, compute_dtype)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else Linear(config.hidden_size, config.vocab_size, bias=False)
        )

    @property
    def head_weight(self) -> Tensor:
        """The float32 output projection ``[vocab, C]``: the embedding itself where it is tied."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 ``[B, T]`` -> hidden states ``[B, T, C]`` after the final norm."""
        return self.model(tokens)  # type: ignore[no-any-return]

    def logits(self, tokens: Tensor) -> Tensor:
        """int64 ``[B, T]`` -> ``[B, T, vocab]``, in the compute dtype."""
        hidden = self(tokens)
        return F.linear(hidden, self.head_weight.to(hidden.dtype))
