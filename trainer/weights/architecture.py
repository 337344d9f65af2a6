"""The architecture that a weight file declares.

Every field comes from the file; one that is missing is an error, never a default. Three absences
mean something by the formats' own documentation: no head_dim is hidden_size / num_heads; Qwen2 has
q, k and v biases and no flag for them; and a Llama without an attention_bias flag has biases if and
only if it stores them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainer import config as configurations
from trainer.config import ModelConfig
from trainer.errors import ArchitectureError, WeightsError
from trainer.weights import apr_file, safetensors_file
from trainer.weights.apr_metadata import config_from_metadata
from trainer.weights.gguf_file import GgufFile
from trainer.weights.locate import WeightFiles, locate, read_json

CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
"""By family, the class that config.json names."""


def read_architecture(path: Path) -> ModelConfig:
    """The configuration of a Hugging Face folder, a .safetensors, a GGUF or an APR file.

    Raises:
        WeightsError: a file is missing or damaged, or lacks a field, which is named.
        ArchitectureError: it is of a family, or a variant, that cannot be trained here.
    """
    files = locate(path)
    if files.format == "gguf":
        return _from_gguf(path)
    if files.format == "apr":
        file = apr_file.opened(path)
        return config_from_metadata(file.metadata, file.model_names(), str(path))
    return _from_hugging_face(files)


def _from_gguf(path: Path) -> ModelConfig:
    file = GgufFile(path)
    family = file.architecture()
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise WeightsError(f"{path}: no token_embd.weight; the file holds no whole model")

    def count(key: str) -> Any:
        # A fraction is passed on as it is, and refused by the name of its field.
        return file.number(f"{family}.{key}")

    hidden_size, num_heads = count("embedding_length"), count("attention.head_count")
    config = ModelConfig(
        architecture=family,
        hidden_size=hidden_size,
        num_layers=count("block_count"),
        num_heads=num_heads,
        num_kv_heads=count("attention.head_count_kv"),
        head_dim=(
            count("attention.key_length")
            if file.has_field(f"{family}.attention.key_length")
            else _head_dim(hidden_size, num_heads, path)
        ),
        intermediate_size=count("feed_forward_length"),
        vocab_size=int(embedding.shape[-1]),
        max_position_embeddings=count("context_length"),
        rope_theta=float(file.number(f"{family}.rope.freq_base")),
        rms_norm_eps=float(file.number(f"{family}.attention.layer_norm_rms_epsilon")),
        attention_bias="blk.0.attn_q.bias" in file.tensors,
        tie_word_embeddings="output.weight" not in file.tensors,
    )
    _refuse(
        path,
        (
            (key, file.field(f"{family}.{key}"), supported)
            for key, supported in (
                ("attention.causal", True),
                ("rope.dimension_count", config.head_dim),
                ("rope.scaling.type", "none"),
            )
            if file.has_field(f"{family}.{key}")
        ),
    )
    return config


def _from_hugging_face(files: WeightFiles) -> ModelConfig:
    assert files.config is not None
    path, config = files.config, read_json(files.config)
    family = str(_field(config, "model_type", path))
    configurations.require_decoder_family(family, str(path))
    _refuse_variants(config, family, path)
    hidden_size = _field(config, "hidden_size", path)
    num_heads = _field(config, "num_attention_heads", path)
    return ModelConfig(
        architecture=family,
        hidden_size=hidden_size,
        num_layers=_field(config, "num_hidden_layers", path),
        num_heads=num_heads,
        num_kv_heads=_field(config, "num_key_value_heads", path),
        head_dim=(
            _head_dim(hidden_size, num_heads, path)
            if config.get("head_dim") is None
            else config["head_dim"]
        ),
        intermediate_size=_field(config, "intermediate_size", path),
        vocab_size=_field(config, "vocab_size", path),
        max_position_embeddings=_field(config, "max_position_embeddings", path),
        rope_theta=_rope_theta(config, path),
        rms_norm_eps=_field(config, "rms_norm_eps", path),
        attention_bias=_attention_bias(config, family, files),
        tie_word_embeddings=_field(config, "tie_word_embeddings", path),
    )


def _field(config: Mapping[str, Any], name: str, path: Path) -> Any:
    value = config.get(name)
    if value is None:
        raise WeightsError(f"{path}: {name} is missing; it is never defaulted, add it to the file")
    return value


def _head_dim(hidden_size: Any, num_heads: Any, path: Path) -> int:
    if not isinstance(hidden_size, int) or not isinstance(num_heads, int) or num_heads < 1:
        raise ArchitectureError(
            f"{path}: hidden size {hidden_size!r} and head count {num_heads!r} give no head_dim"
        )
    if hidden_size % num_heads:
        raise ArchitectureError(
            f"{path}: head_dim is absent and {num_heads} heads do not divide {hidden_size}"
        )
    return hidden_size // num_heads


def _rope_theta(config: Mapping[str, Any], path: Path) -> Any:
    # transformers 5 moved theta and the kind of scaling into rope_parameters.
    parameters = _object(config, "rope_parameters", path)
    theta = _field({"rope_theta": config.get("rope_theta"), **parameters}, "rope_theta", path)
    # A boolean, and an integer that no float holds, go on as they are and are refused by name.
    return float(theta) if type(theta) is int and abs(theta) <= sys.float_info.max else theta


def _object(config: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise WeightsError(f"{path}: {name} must be an object, not {value!r}")
    return value


def _attention_bias(config: Mapping[str, Any], family: str, files: WeightFiles) -> Any:
    stated = config.get("attention_bias")
    if stated is not None:
        return stated
    if family == "qwen2":
        return True
    names = safetensors_file.tensor_names(files.tensors)
    return "model.layers.0.self_attn.q_proj.bias" in names


def _refuse_variants(config: Mapping[str, Any], family: str, path: Path) -> None:
    """Refuse what changes the computation, or says that the file is another kind of model."""
    kinds = [(name, _object(config, name, path)) for name in ("rope_parameters", "rope_scaling")]
    own_class, stated = [CLASSES.get(family)], config.get("architectures")
    variants = [
        ("hidden_act", config.get("hidden_act", "silu"), "silu"),
        *(
            (f"{name}: RoPE scaling", rope.get("rope_type", rope.get("type", "default")), "default")
            for name, rope in kinds
        ),
        ("mlp_bias", config.get("mlp_bias", False), False),
        ("use_sliding_window", config.get("use_sliding_window", False), False),
        ("is_encoder_decoder", config.get("is_encoder_decoder", False), False),
        ("add_cross_attention", config.get("add_cross_attention", False), False),
        ("architectures", own_class if stated is None else stated, own_class),
    ]
    if family == "qwen2" and config.get("attention_bias") is not None:
        # The family has no such flag, so one that is there must say what holds for all of it.
        variants.append(("attention_bias", config["attention_bias"], True))
    _refuse(path, variants)


def _refuse(path: Path, variants: Iterable[tuple[str, Any, Any]]) -> None:
    for name, found, supported in variants:
        # 0 and 1 equal false and true in Python, and are neither in a file.
        if type(found) is not type(supported) or found != supported:
            raise ArchitectureError(
                f"{path}: {name} {found!r} is not supported, only {supported!r}"
            )
