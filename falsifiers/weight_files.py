"""Small Hugging Face folders with random weights, written from the configuration alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from falsifiers.reference.model import parameter_shapes


def random_weights(config: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    """float32 tensors by name: matrices and biases normal(0, 0.05), norms near one.

    The deviation differs from any usual initialisation, so that random weights of the trainer's
    own are far from these.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in sorted(parameter_shapes(config).items()):
        noise = torch.randn(shape, generator=generator)
        is_norm = len(shape) == 1 and not name.endswith("bias")
        weights[name] = 1 + 0.1 * noise if is_norm else 0.05 * noise
    return weights


def write_folder(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Path:
    """A folder with ``config.json`` and ``model.safetensors``, as Hugging Face lays them out."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(hugging_face_config(config)))
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def hugging_face_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ``config.json`` of a configuration."""
    return {
        "model_type": config["architecture"],
        "hidden_size": config["hidden_size"],
        "num_hidden_layers": config["num_layers"],
        "num_attention_heads": config["num_heads"],
        "num_key_value_heads": config["num_kv_heads"],
        "head_dim": config["head_dim"],
        "intermediate_size": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "max_position_embeddings": config["max_position_embeddings"],
        "rope_theta": config["rope_theta"],
        "rms_norm_eps": config["rms_norm_eps"],
        "attention_bias": config["attention_bias"],
        "tie_word_embeddings": config["tie_word_embeddings"],
        "hidden_act": "silu",
    }
