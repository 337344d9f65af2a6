"""Tensors and metadata from a GGUF file, the format of llama.cpp.

Three oddities are undone here. GGUF lists dimensions innermost first (the `gguf` package already
turns them round). Files of the `llama` family store the rows of q and k permuted, head by head,
for rotary pairs (2i, 2i + 1); the model rotates pairs (i, i + D/2). `qwen2` files are not permuted.
And metadata floats are float32, so 1e-6 is stored as 9.99999997e-07: the shortest decimal that
gives the same float32 is what was meant.

A file with an `output.weight` has an untied head: that is how llama.cpp reads it, and the format
has no other flag. Some converters write one for tied models, in another quantisation than the
embedding, and then the two are not equal and cannot be stored as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from trainer import config as configurations
from trainer.errors import WeightsError

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
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

MOST_THREADS = 8

# What the reader raises on bytes that are no GGUF, depending on where they go wrong.
_READ_ERRORS = (ValueError, IndexError, KeyError, OverflowError, TypeError, OSError, MemoryError)


class _BoundedReader(gguf.GGUFReader):
    """Refuses to read past the end, where the library returns fewer elements than it was asked.

    Also keeps the file as a plain array over the mapped bytes: the library slices it a million
    times to read a vocabulary, and each slice of a `numpy.memmap` costs three times as much.
    """

    @property  # type: ignore[override]
    def data(self) -> np.ndarray[Any, Any]:
        """The bytes of the file."""
        return self._data

    @data.setter
    def data(self, mapped: np.ndarray[Any, Any]) -> None:
        self._data = mapped.view(np.ndarray)

    def _get(
        self, offset: int, dtype: Any, count: int = 1, override_order: Any = None
    ) -> np.ndarray[Any, Any]:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"byte {end} is needed, the file has {len(self.data)}")
        found: np.ndarray[Any, Any] = super()._get(offset, dtype, count, override_order)
        return found


@lru_cache(maxsize=1)
def _opened(path: Path, size: int, modified_ns: int) -> _BoundedReader:
    """The latest file, kept: a build asks for architecture, tensors and tokenizer one by one."""
    return _BoundedReader(path)


class GgufFile:
    """An opened GGUF file.

    Raises:
        WeightsError: missing, empty, of another format, or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            stat = path.stat()
            self._reader = _opened(path, stat.st_size, stat.st_mtime_ns)
        except _READ_ERRORS as error:
            raise WeightsError(f"{path}: not a whole GGUF file: {error}; fetch it again") from error

    def field(self, key: str) -> Any:
        """A metadata value; floats as the shortest decimal with the same float32 value.

        Raises:
            WeightsError: the file has no such field, or its text is damaged.
        """
        found = self._reader.get_field(key)
        if found is None:
            raise WeightsError(f"{self.path}: the metadata has no {key}; convert the model again")
        try:
            value = found.contents()
        except UnicodeDecodeError as error:
            raise WeightsError(f"{self.path}: {key} is damaged: {error}; fetch it again") from error
        return float(str(np.float32(value))) if isinstance(value, float) else value

    def number(self, key: str) -> int | float:
        """A metadata value that must be one number.

        Raises:
            WeightsError: the file has no such field, or it is something else.
        """
        value = self.field(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WeightsError(f"{self.path}: {key} must be one number, not {value!r}")
        return value

    def has_field(self, key: str) -> bool:
        """Whether the metadata has `key`."""
        return self._reader.get_field(key) is not None

    @cached_property
    def tensors(self) -> Mapping[str, gguf.ReaderTensor]:
        """Tensors by GGUF name, still quantised."""
        return {tensor.name: tensor for tensor in self._reader.tensors}

    def architecture(self) -> str:
        """The family that the file declares.

        Raises:
            ArchitectureError: it is not a decoder that can be trained here.
        """
        family = str(self.field("general.architecture"))
        configurations.require_decoder_family(family, str(self.path))
        return family


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a GGUF file under their Hugging Face names, float32 on the CPU.

    A tensor that has no Hugging Face name keeps its own, so that `populate` reports it.

    Raises:
        WeightsError: damaged file, or a quantisation that cannot be undone.
        ArchitectureError: the family cannot be trained here.
    """
    file = GgufFile(path)
    permuted_heads = _permuted_heads(file)

    def read(name: str) -> Tensor:
        tensor = _dequantised(file, name)
        role = name.split(".")[-2] if "." in name else name
        heads = permuted_heads.get(role)
        return tensor if heads is None else undo_rotary_permutation(tensor, heads)

    # Dequantising is numpy on one core each, which releases the interpreter: seconds for 0.5 B.
    with ThreadPoolExecutor(max_workers=MOST_THREADS) as pool:
        return dict(
            zip(map(hugging_face_name, file.tensors), pool.map(read, file.tensors), strict=True)
        )


def _dequantised(file: GgufFile, name: str) -> Tensor:
    stored = file.tensors[name]
    try:
        values = gguf.dequantize(stored.data, stored.tensor_type)
    except (NotImplementedError, ValueError) as error:
        raise WeightsError(f"{file.path}: {name} cannot be dequantised: {error}") from error
    return torch.from_numpy(np.array(values, dtype=np.float32))


def hugging_face_name(name: str) -> str:
    """The Hugging Face name of a GGUF tensor, or the name itself if it has none."""
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer is None or layer[2] not in _LAYER:
        return _TOP.get(name, name)
    return f"model.layers.{layer[1]}.{_LAYER[layer[2]]}.{layer[3]}"


def gguf_name(name: str) -> str:
    """The GGUF name of a decoder's parameter, by its Hugging Face name."""
    if name in _TOP.values():
        return next(stored for stored, known in _TOP.items() if known == name)
    _, _, layer, role = name.split(".", 3)
    module, _, kind = role.rpartition(".")
    stored = next(stored for stored, known in _LAYER.items() if known == module)
    return f"blk.{layer}.{stored}.{kind}"


def undo_rotary_permutation(stored: Tensor, heads: int) -> Tensor:
    """Rows of q or k, ``[heads · D, ...]``: from pairs (2i, 2i + 1) to pairs (i, i + D/2)."""
    pairs = stored.view(heads, stored.shape[0] // heads // 2, 2, *stored.shape[1:])
    return pairs.transpose(1, 2).reshape(stored.shape)


def _permuted_heads(file: GgufFile) -> dict[str, int]:
    if file.architecture() != "llama":
        return {}
    return {
        "attn_q": int(file.number("llama.attention.head_count")),
        "attn_k": int(file.number("llama.attention.head_count_kv")),
    }
