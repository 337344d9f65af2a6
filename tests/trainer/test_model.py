"""The decoder against a float64 model written out with loops over heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trainer.config import ModelConfig
from trainer.errors import ConfigurationError
from trainer.model import init
from trainer.model.decoder import Decoder
from trainer.model.rope import RotaryEmbedding, split_and_rotate

MakeModel = Callable[..., Decoder]


def reference_logits(config: ModelConfig, parameters: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Logits of one sequence ``[T]`` in float64: complex rotations, explicit heads and mask."""
    p = {name: value.detach().double() for name, value in parameters.items()}

    def norm(x: Tensor, weight: str) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * p[weight]

    def project(x: Tensor, name: str) -> Tensor:
        return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", torch.zeros(()))

    def rotated(x: Tensor) -> Tensor:
        half = config.head_dim // 2
        frequencies = config.rope_theta ** (-torch.arange(half).double() / half)
        angles = torch.arange(len(x)).double()[:, None] * frequencies
        turned = torch.complex(x[:, :half], x[:, half:]) * torch.polar(
            torch.ones_like(angles), angles
        )
        return torch.cat((turned.real, turned.imag), -1)

    x = p["model.embed_tokens.weight"][tokens]
    length, d = len(tokens), config.head_dim
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for layer in range(config.num_layers):
        name = f"model.layers.{layer}"
        h = norm(x, f"{name}.input_layernorm.weight")
        q, k, v = (project(h, f"{name}.self_attn.{part}_proj") for part in "qkv")
        heads = []
        for head in range(config.num_heads):
            shared = head // (config.num_heads // config.num_kv_heads)
            scores = rotated(q[:, head * d : (head + 1) * d]) @ (
                rotated(k[:, shared * d : (shared + 1) * d]).T
            )
            weights = (scores / math.sqrt(d)).masked_fill(future, -math.inf).softmax(-1)
            heads.append(weights @ v[:, shared * d : (shared + 1) * d])
        x = x + project(torch.cat(heads, -1), f"{name}.self_attn.o_proj")
        h = norm(x, f"{name}.post_attention_layernorm.weight")
        gate = project(h, f"{name}.mlp.gate_proj")
        up = project(h, f"{name}.mlp.up_proj")
        x = x + project(gate * torch.sigmoid(gate) * up, f"{name}.mlp.down_proj")
    head_name = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    return norm(x, "model.norm.weight") @ p[head_name].T


def test_logits_agree_with_a_float64_reference(config: ModelConfig, make_model: MakeModel) -> None:
    """In float32 the logits are within 1e-5 of their scale of an independent float64 model.

    A clean model is at 1e-6 or less; any dropped bias, wrong pair, scale or mask is above 1e-2.
    """
    model = make_model(config)
    tokens = torch.arange(20) * 7 % config.vocab_size
    expected = reference_logits(config, dict(model.named_parameters()), tokens)
    error = (model.logits(tokens[None])[0] - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_norm_uses_the_eps_of_the_configuration(
    llama: ModelConfig, make_model: MakeModel, eps: float
) -> None:
    """With embeddings as small as eps, logits agree only if eps is the configured one."""
    config = replace(llama, rms_norm_eps=eps)
    model = make_model(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1e-2)
    tokens = torch.arange(10)
    expected = reference_logits(config, dict(model.named_parameters()), tokens)
    assert torch.allclose(model.logits(tokens[None])[0].double(), expected, rtol=1e-4, atol=1e-6)


def test_a_layer_adds_first_what_the_one_before_handed_over(
    llama: ModelConfig, make_model: MakeModel
) -> None:
    """Given stream and update it computes, bit for bit, what it does given their sum."""
    layer = make_model(llama).model.layers[1]
    stream, update = torch.randn(2, 1, 9, llama.hidden_size, generator=torch.manual_seed(0))
    for ours, expected in zip(layer(stream, update), layer(stream + update, None), strict=True):
        assert torch.equal(ours, expected)
    assert not torch.equal(layer(stream, update)[1], layer(stream, None)[1])


def test_parameters_carry_their_hugging_face_names(llama: ModelConfig, qwen2: ModelConfig) -> None:
    """A tied head has no entry; biases exist for q, k and v if and only if configured."""
    layer = [
        "input_layernorm.weight",
        *(f"self_attn.{part}_proj.weight" for part in "qkvo"),
        "post_attention_layernorm.weight",
        *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    ]
    layers = {f"model.layers.{index}.{name}" for index in range(2) for name in layer}
    tied = {"model.embed_tokens.weight", "model.norm.weight"} | layers
    biases = {f"model.layers.{i}.self_attn.{part}_proj.bias" for i in range(2) for part in "qkv"}
    assert {name for name, _ in Decoder(llama).named_parameters()} == tied
    assert {name for name, _ in Decoder(qwen2).named_parameters()} == (
        tied | biases | {"lm_head.weight"}
    )


def test_master_parameters_stay_float32_in_bfloat16_compute(
    qwen2: ModelConfig, make_model: MakeModel
) -> None:
    """Activations are bfloat16, parameters and their gradients float32."""
    model = make_model(qwen2, dtype=torch.bfloat16)
    hidden = model(torch.arange(8)[None])
    assert hidden.dtype == torch.bfloat16
    model.logits(torch.arange(8)[None]).float().sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32, name
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name


def test_first_position_is_not_rotated() -> None:
    """Position 0 keeps its bits, position 1 does not: logits alone cannot tell a common shift."""
    rope = RotaryEmbedding(8, 100.0, 4)
    q, k = torch.randn(1, 2, 2, 8), torch.randn(1, 1, 2, 8)
    for given, turned in zip((q, k), rope(q, k), strict=True):
        assert torch.equal(turned[:, :, 0], given[:, :, 0])
        assert not torch.equal(turned[:, :, 1], given[:, :, 1])


@pytest.mark.parametrize(("batch", "length"), [(2, 0), (0, 3), (2, 3)])
def test_joint_projection_of_no_tokens_is_split_into_heads(batch: int, length: int) -> None:
    """Queries, keys and values have their heads, as many as of any other number of tokens."""
    joint = torch.randn(batch, length, (4 + 2 * 2) * 8)
    q, k, v = split_and_rotate(joint, 8, 2 * 8, RotaryEmbedding(8, 100.0, 4))
    assert q.shape == (batch, 4, length, 8)
    assert k.shape == v.shape == (batch, 2, length, 8)


def test_layers_share_one_pair_of_rope_tables(llama: ModelConfig) -> None:
    """A long context costs one table, not one a layer."""
    first, second = (layer.self_attn.rope for layer in Decoder(llama).model.layers)  # type: ignore[union-attr]
    assert first is not second
    assert first.cos.data_ptr() == second.cos.data_ptr()  # type: ignore[union-attr, operator]


def test_sequence_beyond_the_positions_is_refused(
    llama: ModelConfig, make_model: MakeModel
) -> None:
    """33 tokens do not fit in 32 positions; both numbers are named."""
    with pytest.raises(ConfigurationError, match="33 > max_position_embeddings 32"):
        make_model(llama)(torch.zeros(1, 33, dtype=torch.int64))


def test_initialisation_has_the_documented_deviations(qwen2: ModelConfig) -> None:
    """Matrices 0.02, residual writers 0.02/√(2·layers), norms one, biases zero."""
    config = replace(qwen2, hidden_size=256, intermediate_size=256)
    model = Decoder(config)
    init.initialize(model, 0)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            expected = 0.01 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
            # 6 standard errors of a deviation estimated from numel values.
            margin = 6 * expected / math.sqrt(2 * parameter.numel())
            assert abs(parameter.std().item() - expected) < margin, name


def test_seed_alone_decides_the_weights(llama: ModelConfig) -> None:
    """Same seed, same weights, whatever the global generator holds; another seed, others."""
    models = [Decoder(llama) for _ in range(3)]
    before = torch.get_rng_state()
    for model, seed in zip(models, (1, 1, 2), strict=True):
        init.initialize(model, seed)
    first, second, third = (model.head_weight for model in models)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.get_rng_state(), before)
