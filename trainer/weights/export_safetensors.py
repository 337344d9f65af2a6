"""A Hugging Face folder: config.json, model.safetensors and, if known, tokenizer.json."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from trainer.config import ModelConfig
from trainer.errors import ArchitectureError, ConfigurationError
from trainer.tokenizer import Tokenizer
from trainer.weights.architecture import CLASSES
from trainer.weights.durable import durable_file, durable_path
from trainer.weights.locate import INDEX


def write_folder(
    folder: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer | None,
    dtype: str,
) -> None:
    """Write the folder; config.json comes last, and without it there is no model.

    In a folder that exists, the model's own files are replaced and others are left alone.

    Raises:
        ArchitectureError: the family cannot have these biases in transformers.
        ConfigurationError: `folder` is a file.
        OSError: it cannot be written. A new folder is then removed again.
    """
    if config.attention_bias != (config.architecture == "qwen2"):
        raise ArchitectureError(
            f"{folder}: {config.architecture} with attention_bias {config.attention_bias} is "
            "another model in transformers: Qwen2 always has q, k and v biases, and a Llama with "
            "biases has one on o_proj too; export to apr or gguf"
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder}: is a file; safetensors are exported to a folder")
    is_new = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        _write_files(folder, config, tensors, tokenizer, dtype)
    except BaseException:
        if is_new:
            _remove_files(folder)
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _write_files(
    folder: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer | None,
    dtype: str,
) -> None:
    _remove_files(folder)
    with durable_path(folder / "model.safetensors") as partial:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            partial,
            metadata={"format": "pt"},
        )
    if tokenizer is not None:
        _write_text(folder / "tokenizer.json", tokenizer.to_json())
    end_of_text = None if tokenizer is None else tokenizer.end_of_text
    description = hugging_face_config(config, dtype, end_of_text)
    _write_text(folder / "config.json", json.dumps(description, indent=2) + "\n")


def _remove_files(folder: Path) -> None:
    # An index of shards would take precedence over the new file, and an old tokenizer would pass
    # for the new model's.
    for name in ("config.json", INDEX, "tokenizer.json", "model.safetensors"):
        (folder / name).unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    with durable_file(path) as file:
        file.write(text.encode())


def hugging_face_config(config: ModelConfig, dtype: str, end_of_text: int | None) -> dict[str, Any]:
    """The content of config.json, as transformers 4 and 5 read it."""
    return {
        "architectures": [CLASSES[config.architecture]],
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
        "attention_bias": config.attention_bias,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": dtype,
        "bos_token_id": None,
        "eos_token_id": end_of_text,
        "use_cache": True,
    }
