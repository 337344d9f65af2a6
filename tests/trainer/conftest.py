"""Tiny models and weight files, small enough that a step takes milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainer.batch import TokenBatch
from trainer.config import ModelConfig
from trainer.model import init
from trainer.model.decoder import Decoder
from trainer.trainer import PretrainTrainer

LLAMA = ModelConfig(
    architecture="llama",
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=48,
    vocab_size=64,
    max_position_embeddings=32,
    rope_theta=100.0,
    rms_norm_eps=1e-5,
    attention_bias=False,
    tie_word_embeddings=True,
)
QWEN2 = replace(
    LLAMA, architecture="qwen2", attention_bias=True, tie_word_embeddings=False, rms_norm_eps=1e-6
)
WIDE_HEADS = replace(LLAMA, head_dim=12, num_kv_heads=1)
# Tiny tensors gain nothing from threads, and waiting threads starve other test workers.
torch.set_num_threads(1)

CONFIGS = {"llama": LLAMA, "qwen2": QWEN2, "wide-heads": WIDE_HEADS}


@pytest.fixture
def llama() -> ModelConfig:
    """Two tied layers without biases."""
    return LLAMA


@pytest.fixture
def qwen2() -> ModelConfig:
    """Two untied layers with q, k and v biases."""
    return QWEN2


@pytest.fixture(params=list(CONFIGS.values()), ids=list(CONFIGS))
def config(request: pytest.FixtureRequest) -> ModelConfig:
    """Each shape of the family in turn."""
    chosen: ModelConfig = request.param
    return chosen


@pytest.fixture
def make_trainer() -> Callable[..., PretrainTrainer]:
    """A trainer on the CPU; keyword arguments override."""

    def make(config: ModelConfig = LLAMA, dtype: str = "float32", seed: int = 7) -> PretrainTrainer:
        return PretrainTrainer(config, "cpu", dtype, seed, 1e-3)

    return make


@pytest.fixture
def make_batch() -> Callable[..., TokenBatch]:
    """Random tokens of the tiny vocabulary."""

    def make(rows: int = 2, length: int = 12, seed: int = 0) -> TokenBatch:
        generator = torch.Generator().manual_seed(seed)
        return TokenBatch(torch.randint(64, (rows, length + 1), generator=generator))

    return make


@pytest.fixture
def make_model() -> Callable[..., Decoder]:
    """A decoder whose every parameter, norms and biases included, is random and matters."""

    def make(config: ModelConfig, seed: int = 3, dtype: torch.dtype = torch.float32) -> Decoder:
        model = Decoder(config, dtype)
        init.initialize(model, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.2 * noise)
        return model

    return make


def hugging_face_config(config: ModelConfig) -> dict[str, object]:
    """The config.json that describes `config`."""
    return {
        "model_type": config.architecture,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


@pytest.fixture
def write_safetensors(tmp_path: Path) -> Callable[..., Path]:
    """Writes a Hugging Face folder; `drop` leaves fields of config.json out."""

    def write(
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        drop: tuple[str, ...] = (),
        **changes: object,
    ) -> Path:
        folder = tmp_path / "hugging_face"
        folder.mkdir()
        fields = hugging_face_config(config) | changes
        kept = {name: value for name, value in fields.items() if name not in drop}
        (folder / "config.json").write_text(json.dumps(kept))
        copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        save_file(copies, folder / "model.safetensors")
        return folder

    return write


GGUF_ROLES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GGUF_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name: str) -> str:
    """GGUF name of a Hugging Face parameter."""
    if name in GGUF_TOP:
        return GGUF_TOP[name]
    _, _, layer, role = name.split(".", 3)
    module, _, kind = role.rpartition(".")
    return f"blk.{layer}.{GGUF_ROLES[module]}.{kind}"


def interleave(rows: Tensor, heads: int) -> Tensor:
    """The row order in which llama.cpp stores q and k of Llama models, spelled out row by row."""
    size = rows.shape[0] // heads
    order = [
        head * size + half * (size // 2) + pair
        for head in range(heads)
        for pair in range(size // 2)
        for half in (0, 1)
    ]
    return rows[order]


@pytest.fixture
def write_gguf(tmp_path: Path) -> Callable[..., Path]:
    """Writes a GGUF file; `drop` leaves keys (without the family) out, `extra` adds or changes."""
    types = {
        bool: gguf.GGUFValueType.BOOL,
        int: gguf.GGUFValueType.UINT32,
        float: gguf.GGUFValueType.FLOAT32,
        str: gguf.GGUFValueType.STRING,
    }

    def write(
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        drop: tuple[str, ...] = (),
        extra: Mapping[str, object] | None = None,
    ) -> Path:
        path, family = tmp_path / "model.gguf", config.architecture
        writer = gguf.GGUFWriter(path, family)
        metadata: dict[str, object] = {
            "embedding_length": config.hidden_size,
            "block_count": config.num_layers,
            "attention.head_count": config.num_heads,
            "attention.head_count_kv": config.num_kv_heads,
            "attention.key_length": config.head_dim,
            "feed_forward_length": config.intermediate_size,
            "context_length": config.max_position_embeddings,
            "rope.freq_base": config.rope_theta,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            **(extra or {}),
        }
        for key, value in metadata.items():
            if key not in drop:
                writer.add_key_value(f"{family}.{key}", value, types[type(value)])
        for name, tensor in tensors.items():
            stored = tensor.detach()
            if family == "llama" and "q_proj" in name:
                stored = interleave(stored, config.num_heads)
            if family == "llama" and "k_proj" in name:
                stored = interleave(stored, config.num_kv_heads)
            writer.add_tensor(gguf_name(name), stored.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write
