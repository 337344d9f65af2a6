"""Small GGUF files, written by the library of the format's authors and not by the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

LAST_TOKEN = "never-merged"
"""Ends the vocabulary: without its last letters it would be another token, and as good a one."""

_NORMAL = 1


def write_model(path: Path, config: Mapping[str, Any]) -> None:
    """What declares the architecture of `config`, and an embedding of zeros as the only tensor."""
    writer = gguf.GGUFWriter(path, config["architecture"])
    writer.add_block_count(config["num_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_heads"])
    writer.add_head_count_kv(config["num_kv_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    shape = config["vocab_size"], config["hidden_size"]
    writer.add_tensor("token_embd.weight", np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_vocabulary(path: Path) -> None:
    """A tokenizer and no tensor, as llama.cpp's ``ggml-vocab`` files; the last token ends it."""
    tokens = ["a", "b", "ab", "<|endoftext|>", LAST_TOKEN]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_merges(["a b"])
    writer.add_token_types([_NORMAL] * len(tokens))
    writer.add_token_list(tokens)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
