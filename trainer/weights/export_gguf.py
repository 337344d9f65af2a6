"""A GGUF file, as llama.cpp loads it; `gguf_file` undoes what is done here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import torch
from torch import Tensor

from trainer.config import ModelConfig
from trainer.tokenizer import Tokenizer, gguf_vocabulary
from trainer.weights.durable import durable_path
from trainer.weights.gguf_file import gguf_name

_FILE_TYPES = {
    "float32": gguf.LlamaFileType.ALL_F32,
    "float16": gguf.LlamaFileType.MOSTLY_F16,
    "bfloat16": gguf.LlamaFileType.MOSTLY_BF16,
}


def write_gguf(
    path: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer | None,
    dtype: str,
) -> None:
    """Write one file, whole or not at all.

    Metadata floats are float32 there, and read back as their shortest decimal.

    Raises:
        TokenizerError: llama.cpp has no name for how `tokenizer` splits text.
        OSError: the file cannot be written.
    """
    with durable_path(path) as partial:
        writer = gguf.GGUFWriter(partial, config.architecture)
        writer.add_file_type(_FILE_TYPES[dtype])
        _add_architecture(writer, config)
        if tokenizer is not None:
            _add_tokenizer(writer, tokenizer, config.vocab_size)
        for name, tensor in tensors.items():
            _add_tensor(writer, gguf_name(name), _rows_as_stored(name, tensor, config))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _add_architecture(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, rows: int) -> None:
    vocabulary = gguf_vocabulary(tokenizer, rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    if tokenizer.end_of_text is not None:
        writer.add_eos_token_id(tokenizer.end_of_text)
    # llama.cpp would otherwise put a token of its own choice before every text.
    writer.add_add_bos_token(False)


def _add_tensor(writer: gguf.GGUFWriter, name: str, tensor: Tensor) -> None:
    if tensor.dtype == torch.bfloat16:
        # numpy has no bfloat16: the bytes are given, and what they are is said.
        raw = tensor.view(torch.uint8).numpy()
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, tensor.numpy())


def _rows_as_stored(name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    """Rows of q and k of a Llama as llama.cpp rotates them: pairs (2i, 2i + 1)."""
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
    role = name.split(".")[-2]
    if config.architecture != "llama" or role not in heads:
        return tensor.contiguous()
    halves = tensor.reshape(heads[role], 2, -1, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)
