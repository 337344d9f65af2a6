"""Real weights for the judges: the oracle's own GGUF reader, and transformers fed from it.

Nothing here goes through the trainer's loader, so a mistake of that one cannot hide. Files are
read once a process: a reference of 135 or 500 million weights takes seconds to dequantize.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from falsifiers.reference import gguf_weights
from falsifiers.weight_files import hugging_face_config


@lru_cache(maxsize=1)
def oracle_weights(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """Configuration and float32 weights of a GGUF file, by Hugging Face name."""
    return gguf_weights.load(path)


def transformers_logits(path: Path, tokens: Tensor) -> Tensor:
    """float32 logits ``[B, T, V]`` of transformers' implementation, on the CPU."""
    import transformers

    config, weights = oracle_weights(path)
    classes = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    }
    config_class, model_class = classes[config["architecture"]]
    with torch.device("meta"):
        model = model_class(config_class(**hugging_face_config(config)))
    model.to_empty(device="cpu")
    model.load_state_dict(dict(weights), strict=False, assign=True)
    model.tie_weights()
    # Rotary frequencies are buffers that no state dict holds: build them where they are real.
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    unset = [n for n, p in model.named_parameters() if n not in weights and n != "lm_head.weight"]
    if unset:
        raise ValueError(f"transformers has parameters that the file lacks: {unset[:5]}")
    with torch.no_grad():
        result: Tensor = model.eval()(tokens).logits
    return result
