"""Decoding with a cache of keys and values, so that a new token costs one position, not all.

The forward here goes through the decoder's own modules, and differs from theirs in one thing:
attention reads the keys and values of earlier positions from buffers. These have a fixed size, and
a mask by position hides what is not written yet, so that every token is the same computation on the
same memory and a CUDA graph can replay it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.errors import ConfigurationError
from trainer.model.attention import Attention
from trainer.model.decoder import Decoder, DecoderLayer
from trainer.model.rope import rotate

_BLOCK = 64
"""Capacities are multiples of it: memory-efficient kernels want aligned masks."""


class KvCache:
    """Keys and values of one sequence, ``[layers, 1, K, capacity, D]`` each, in the compute dtype.

    Args:
        model: the decoder that will read it.
        positions: how many positions the sequence can have.

    Raises:
        ConfigurationError: the model has fewer positions.
    """

    def __init__(self, model: Decoder, positions: int) -> None:
        config = model.config
        if not 1 <= positions <= config.max_position_embeddings:
            raise ConfigurationError(
                f"{positions} positions are outside 1 … {config.max_position_embeddings}, "
                "the model's max_position_embeddings; shorten the prompt or ask for fewer tokens"
            )
        capacity = -(-positions // _BLOCK) * _BLOCK
        shape = (config.num_layers, 1, config.num_kv_heads, capacity, config.head_dim)
        weight = model.head_weight
        # Zeros, not garbage: a masked weight of 0 times a NaN would still be NaN.
        self.keys = torch.zeros(
            shape, dtype=model.model.embed_tokens.compute_dtype, device=weight.device
        )
        self.values = torch.zeros_like(self.keys)
        self.slots = torch.arange(capacity, device=weight.device)


def cached_logits(model: Decoder, cache: KvCache, tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits after the last of `tokens`; their keys and values are put into `cache`.

    Args:
        model: the decoder.
        cache: holds every position before the first of `positions`.
        tokens: int64 ``[1, T]``.
        positions: int64 ``[T]``, consecutive.

    Returns:
        ``[vocab]`` in the compute dtype, as `Decoder.logits` gives for the last position of the
        whole sequence.
    """
    stack = model.model
    visible = cache.slots <= positions[:, None]
    stream = stack.embed_tokens(tokens)
    for index, module in enumerate(stack.layers):
        layer = cast(DecoderLayer, module)
        stream = stream + _attend(
            layer.self_attn,
            layer.input_layernorm(stream),
            (cache.keys[index], cache.values[index]),
            positions,
            visible,
        )
        stream = stream + layer.mlp(layer.post_attention_layernorm(stream))
    hidden = stack.norm(stream[0, -1])
    return F.linear(hidden, model.head_weight.to(hidden.dtype))


def _attend(
    attention: Attention,
    x: Tensor,
    buffers: tuple[Tensor, Tensor],
    positions: Tensor,
    visible: Tensor,
) -> Tensor:
    """``x [1, T, C]``, the layer's key and value buffers, ``visible [T, capacity]`` -> like x."""
    keys, values = buffers
    cos, sin = attention.rope.cos[positions], attention.rope.sin[positions]
    q = rotate(attention.split_heads(attention.q_proj(x)), cos, sin)
    k = rotate(attention.split_heads(attention.k_proj(x)), cos, sin)
    keys.index_copy_(2, positions, k)
    values.index_copy_(2, positions, attention.split_heads(attention.v_proj(x)))
    # The queries that share a key/value head become rows of one attention: kernels that take a
    # mask do not take grouped queries.
    groups = q.shape[1] // keys.shape[1]
    grouped = q.reshape(1, keys.shape[1], -1, attention.head_dim)
    mixed = F.scaled_dot_product_attention(
        grouped, keys, values, attn_mask=visible.repeat(groups, 1)
    )
    per_head = mixed.reshape(q.shape)
    out: Tensor = attention.o_proj(per_head.transpose(1, 2).flatten(2))
    return out
