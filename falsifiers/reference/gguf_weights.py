"""Real weights for the oracle, read from GGUF by a mapping of its own.

llama.cpp stores the q and k rows of `llama` models permuted for interleaved RoPE, head by head;
here they are put back in half-split order. `qwen2` is stored unpermuted. Quantized tensors are
dequantized, so no equality with a published checkpoint may be claimed. Format: the GGUF
specification of ggml (docs/gguf.md).
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import OracleInputError
from .model import check_parameters

ARCHITECTURES = ("llama", "qwen2")
_THREADS = 8

_OUTSIDE_BLOCKS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class _Reader(gguf.GGUFReader):
    """The library's reader over a plain array: slicing a `numpy.memmap` costs three times as much,
    and a vocabulary takes a million slices."""

    @property  # type: ignore[override]
    def data(self) -> NDArray[Any]:
        return self._plain

    @data.setter
    def data(self, mapped: NDArray[Any]) -> None:
        self._plain = mapped.view(np.ndarray)


@lru_cache(maxsize=1)
def open_file(path: Path) -> gguf.GGUFReader:
    """A GGUF file with its metadata parsed; the latest one is kept.

    Raises:
        OracleInputError: not a GGUF file.
    """
    try:
        return _Reader(path)
    except (OSError, ValueError) as error:
        raise OracleInputError(f"{path}: not a readable GGUF file ({error})") from error


def load(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and parameters (float32, CPU, by Hugging Face name) of a GGUF file.

    A stored ``output.weight`` is a head of its own: it may be quantized otherwise than the
    embedding, and is then not equal to it, also where the published model ties the two.

    Raises:
        OracleInputError: not a GGUF file, of another architecture, or with tensors that the
            architecture does not have.
    """
    reader = open_file(path)
    config = _configuration(reader, path)
    names = [_parameter_name(tensor.name, path) for tensor in reader.tensors]

    def read(name: str, tensor: gguf.ReaderTensor) -> Tensor:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if config["architecture"] == "llama":
            values = _undo_permutation(values, name, config)
        return torch.from_numpy(np.ascontiguousarray(values))

    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        parameters = dict(zip(names, pool.map(read, names, reader.tensors), strict=True))
    check_parameters(parameters, config)
    return config, parameters


def _configuration(reader: gguf.GGUFReader, path: Path) -> dict[str, Any]:
    def read(key: str) -> Any:
        field = reader.get_field(key)
        if field is None:
            raise OracleInputError(f"{path}: metadata key {key} is missing; use a complete file")
        return field.contents()

    architecture = read("general.architecture")
    if architecture not in ARCHITECTURES:
        raise OracleInputError(
            f"{path}: architecture {architecture!r}; the oracle knows {', '.join(ARCHITECTURES)}"
        )
    names = {tensor.name for tensor in reader.tensors}
    shapes = {tensor.name: tuple(int(n) for n in tensor.shape) for tensor in reader.tensors}
    if "token_embd.weight" not in shapes:
        raise OracleInputError(f"{path}: tensor token_embd.weight is missing")
    heads = int(read(f"{architecture}.attention.head_count"))
    hidden = int(read(f"{architecture}.embedding_length"))
    stated_head_dim = reader.get_field(f"{architecture}.attention.key_length")
    return {
        "architecture": architecture,
        "hidden_size": hidden,
        "num_layers": int(read(f"{architecture}.block_count")),
        "num_heads": heads,
        "num_kv_heads": int(read(f"{architecture}.attention.head_count_kv")),
        "head_dim": hidden // heads if stated_head_dim is None else stated_head_dim.contents(),
        "intermediate_size": int(read(f"{architecture}.feed_forward_length")),
        # GGUF lists the fastest axis first: [hidden, vocab] for a [vocab, hidden] matrix.
        "vocab_size": shapes["token_embd.weight"][1],
        "max_position_embeddings": int(read(f"{architecture}.context_length")),
        "rope_theta": _stated_decimal(read(f"{architecture}.rope.freq_base")),
        "rms_norm_eps": _stated_decimal(read(f"{architecture}.attention.layer_norm_rms_epsilon")),
        "attention_bias": "blk.0.attn_q.bias" in names,
        "tie_word_embeddings": "output.weight" not in names,
    }


def _stated_decimal(value: float) -> float:
    """The shortest decimal that the stored float32 stands for: 1e-06, not 9.999999974752427e-07."""
    return float(str(np.float32(value)))


def _parameter_name(name: str, path: Path) -> str:
    if name in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in _IN_BLOCK:
        raise OracleInputError(f"{path}: tensor {name} has no place in a Llama or Qwen2 decoder")
    return f"model.layers.{match[1]}.{_IN_BLOCK[match[2]]}.{match[3]}"


def _undo_permutation(
    values: NDArray[np.float32], name: str, config: dict[str, Any]
) -> NDArray[np.float32]:
    """Rows of a q or k matrix from interleaved (pair, half) to half-split (half, pair) order."""
    if name.endswith("q_proj.weight"):
        heads = config["num_heads"]
    elif name.endswith("k_proj.weight"):
        heads = config["num_kv_heads"]
    else:
        return values
    rows, columns = values.shape
    paired = values.reshape(heads, rows // heads // 2, 2, columns)
    return paired.transpose(0, 2, 1, 3).reshape(rows, columns)
