"""Causal self-attention with grouped queries (Ainslie et al. 2023)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config import ModelConfig
from trainer.model.linear import Linear, joins_projections, project, project_jointly
from trainer.model.rope import RotaryEmbedding, split_and_rotate


class ScaledDotProductAttention(nn.Module):
    """``softmax(q kᵀ / √D + causal mask) v``; query head h reads key/value head h // (H / K)."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``q [B, H, T, D], k and v [B, K, T, D]`` -> ``[B, H, T, D]``."""
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
        )


class Attention(nn.Module):
    """Projections, rotary positions and attention of one layer."""

    def __init__(self, config: ModelConfig, tables: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        query_size = config.num_heads * config.head_dim
        key_value_size = config.num_kv_heads * config.head_dim
        bias = config.attention_bias
        self.q_proj = Linear(config.hidden_size, query_size, bias=bias)
        self.k_proj = Linear(config.hidden_size, key_value_size, bias=bias)
        self.v_proj = Linear(config.hidden_size, key_value_size, bias=bias)
        self.o_proj = Linear(query_size, config.hidden_size, bias=False)
        self.rope = RotaryEmbedding(
            config.head_dim, config.rope_theta, config.max_position_embeddings, tables
        )
        self.sdpa = ScaledDotProductAttention()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C] -> [B, T, C]``."""
        projections = self.q_proj, self.k_proj, self.v_proj
        if joins_projections(x):
            joint = project_jointly(x, *projections)
            q, k, v = split_and_rotate(joint, self.head_dim, len(self.k_proj.weight), self.rope)
        else:
            q, k, v = map(self.split_heads, project(x, *projections))
            q, k = self.rope(q, k)
        mixed = self.sdpa(q, k, v)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def split_heads(self, x: Tensor) -> Tensor:
        """``[B, T, heads · D] -> [B, heads, T, D]``."""
        heads = x.shape[-1] // self.head_dim
        return x.view(*x.shape[:-1], heads, self.head_dim).transpose(1, 2)
