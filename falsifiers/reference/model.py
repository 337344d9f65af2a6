"""The decoder as one function of its parameters: Llama and Qwen2 logits in float64.

Pre-norm blocks of grouped-query attention and SwiGLU over a residual stream, with RMSNorm and
RoPE (Touvron et al. 2023; Qwen Team 2024). Parameters go by their Hugging Face names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import operators
from .errors import OracleInputError

Parameters = Mapping[str, Tensor]
Configuration = Mapping[str, Any]


def logits(parameters: Parameters, config: Configuration, tokens: Tensor) -> Tensor:
    """Next-token logits, float64 ``[B, T, V]``, differentiable in `parameters`.

    Args:
        parameters: floating tensors by Hugging Face name, in any dtype; raised to float64 here.
        config: the fields of a subject's configuration.
        tokens: int64 ``[B, T]``, on the parameters' device.

    Raises:
        OracleInputError: parameters missing, surplus or of a wrong shape.
    """
    check_parameters(parameters, config)

    def read(name: str) -> Tensor:
        return parameters[name].to(torch.float64)

    embedding = read("model.embed_tokens.weight")
    stream = operators.embedding(tokens, embedding)
    for layer in range(config["num_layers"]):
        stream = _block(parameters, config, f"model.layers.{layer}.", stream)
    hidden = operators.rmsnorm(stream, read("model.norm.weight"), config["rms_norm_eps"])
    head = embedding if config["tie_word_embeddings"] else read("lm_head.weight")
    return operators.linear(hidden, head)


def _block(parameters: Parameters, config: Configuration, prefix: str, stream: Tensor) -> Tensor:
    def norm(x: Tensor, name: str) -> Tensor:
        weight = parameters[f"{prefix}{name}.weight"].to(torch.float64)
        return operators.rmsnorm(x, weight, config["rms_norm_eps"])

    def project(x: Tensor, name: str) -> Tensor:
        weight = parameters[f"{prefix}{name}.weight"].to(torch.float64)
        bias = parameters.get(f"{prefix}{name}.bias")
        return operators.linear(x, weight, None if bias is None else bias.to(torch.float64))

    def heads(x: Tensor, count: int) -> Tensor:
        batch, length, _ = x.shape
        return x.reshape(batch, length, count, config["head_dim"]).transpose(1, 2)

    x = norm(stream, "input_layernorm")
    q = heads(project(x, "self_attn.q_proj"), config["num_heads"])
    k = heads(project(x, "self_attn.k_proj"), config["num_kv_heads"])
    v = heads(project(x, "self_attn.v_proj"), config["num_kv_heads"])
    q, k = operators.rope(q, k, config["rope_theta"])
    mixed = operators.attention(q, k, v).transpose(1, 2).flatten(2)
    stream = operators.residual(stream, project(mixed, "self_attn.o_proj"))

    x = norm(stream, "post_attention_layernorm")
    gated = operators.swiglu(project(x, "mlp.gate_proj"), project(x, "mlp.up_proj"))
    return operators.residual(stream, project(gated, "mlp.down_proj"))


def parameter_shapes(config: Configuration) -> dict[str, tuple[int, ...]]:
    """The shape of every stored parameter that `config` implies, by Hugging Face name.

    q, k and v have a bias iff ``attention_bias``; ``lm_head.weight`` exists iff the head is not
    tied to the embedding.
    """
    hidden, ffn, vocab = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    query = config["num_heads"] * config["head_dim"]
    key_value = config["num_kv_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(config["num_layers"]):
        block = f"model.layers.{layer}."
        shapes[block + "input_layernorm.weight"] = (hidden,)
        for name, rows in (("q_proj", query), ("k_proj", key_value), ("v_proj", key_value)):
            shapes[block + f"self_attn.{name}.weight"] = (rows, hidden)
            if config["attention_bias"]:
                shapes[block + f"self_attn.{name}.bias"] = (rows,)
        shapes[block + "self_attn.o_proj.weight"] = (hidden, query)
        shapes[block + "post_attention_layernorm.weight"] = (hidden,)
        shapes[block + "mlp.gate_proj.weight"] = (ffn, hidden)
        shapes[block + "mlp.up_proj.weight"] = (ffn, hidden)
        shapes[block + "mlp.down_proj.weight"] = (hidden, ffn)
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def check_parameters(parameters: Parameters, config: Configuration) -> None:
    """Refuse parameters that are not exactly those that `config` implies.

    Raises:
        OracleInputError: naming what is missing, surplus or of a wrong shape.
    """
    expected = parameter_shapes(config)
    missing = sorted(expected.keys() - parameters.keys())
    surplus = sorted(parameters.keys() - expected.keys())
    misshapen = [
        f"{name} is {tuple(parameters[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if name in parameters and tuple(parameters[name].shape) != shape
    ]
    if missing or surplus or misshapen:
        raise OracleInputError(
            f"parameters do not fit the configuration: missing {missing}; surplus {surplus}; "
            f"wrong shape {misshapen}; pass the configuration that these parameters have"
        )
