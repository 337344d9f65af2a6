"""A model of any format that can be read, as a file of any format that can be written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainer import tokenizer as tokenizers
from trainer.config import ModelConfig
from trainer.errors import ConfigurationError, WeightsError
from trainer.tokenizer import Tokenizer
from trainer.weights import apr_metadata, apr_writer, export_gguf, export_safetensors
from trainer.weights.apr_file import require_finite
from trainer.weights.architecture import read_architecture
from trainer.weights.load import load_init_tensors

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
FORMATS = ("apr", "safetensors", "gguf")
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Model:
    """A whole model on the CPU: every parameter of `config`, and nothing else.

    Attributes:
        tensors: by Hugging Face name; a tied head is not among them.
        tokenizer: the one that belongs to it, if that is known.
    """

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer | None


def load_model(
    path: Path, tokenizer_path: Path | None = None, *, with_tokenizer: bool = True
) -> Model:
    """The model at `path` in float32, with the tokenizer at `tokenizer_path` or its own, if asked.

    Raises:
        WeightsError: a file is damaged, or the tensors are not exactly the model's.
        ArchitectureError: it is no decoder that can be trained here.
        TokenizerError: the tokenizer is damaged, or has more ids than the model has rows.
    """
    config = read_architecture(path)
    tensors = _without_tied_copy(config, load_init_tensors(path), path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    apr_metadata.check_shapes(shapes, apr_metadata.config_metadata(config), path)
    tokenizer = _tokenizer(path, tokenizer_path) if with_tokenizer else None
    if tokenizer is not None:
        tokenizers.require_fitting_vocabulary(
            tokenizer.vocab_size, config.vocab_size, with_init=True
        )
    return Model(config, tensors, tokenizer)


def _tokenizer(model_path: Path, asked: Path | None) -> Tokenizer | None:
    if asked is None:
        folder = model_path.parent if model_path.suffix == ".safetensors" else model_path
        asked = folder if tokenizers.has_tokenizer(folder) else None
    return None if asked is None else tokenizers.load_tokenizer(asked)


def export(model: Model, target: Path, format_: str, dtype: str, *, force: bool) -> None:
    """Write `model` to `target`, whole or not at all; values are rounded once, to nearest even.

    In GGUF, vectors (norms and biases) stay float32 whatever `dtype` is, as llama.cpp wants them.

    Args:
        model: what to write.
        target: a file; for safetensors a folder, as Hugging Face libraries load it.
        format_: one of `FORMATS`.
        dtype: one of `DTYPES`.
        force: replace what stands at `target`.

    Raises:
        ConfigurationError: `target` exists, or its folder does not, or there is no room.
        WeightsError: a value is not finite in `dtype`.
        ArchitectureError: the format cannot express the architecture.
        OSError: it cannot be written. Nothing is left behind.
    """
    tensors = {
        name: tensor if format_ == "gguf" and tensor.ndim == 1 else tensor.to(DTYPES[dtype])
        for name, tensor in model.tensors.items()
    }
    require_place(target, force=force)
    _require_room(target, sum(tensor.nbytes for tensor in tensors.values()))
    for name, tensor in tensors.items():
        require_finite(name, tensor, target)
    if format_ == "gguf":
        export_gguf.write_gguf(target, model.config, tensors, model.tokenizer, dtype)
    elif format_ == "safetensors":
        export_safetensors.write_folder(target, model.config, tensors, model.tokenizer, dtype)
    else:
        embedded = {} if model.tokenizer is None else tokenizers.tokenizer_metadata(model.tokenizer)
        metadata = apr_metadata.config_metadata(model.config) | embedded
        apr_writer.write_apr(target, metadata, tensors)


def require_other_place(source: Path, target: Path) -> None:
    """Refuse to write over what is being read.

    Raises:
        ConfigurationError: both are the same, or `source` lies in the folder `target`.
    """
    first, second = source.resolve(), target.resolve()
    if second == first or second in first.parents:
        raise ConfigurationError(f"{target}: is, or holds, what is exported; choose another path")


def format_of(target: Path, asked: str | None) -> str:
    """The format that was asked for, or the one that the suffix of `target` stands for.

    Raises:
        ConfigurationError: `target` is named like one safetensors file.
    """
    if target.suffix == ".safetensors" and asked in (None, "safetensors"):
        raise ConfigurationError(
            f"{target}: a model in safetensors is a folder, with its config.json; name a folder"
        )
    if asked is not None:
        return asked
    return {".apr": "apr", ".gguf": "gguf"}.get(target.suffix, "safetensors")


def require_place(target: Path, *, force: bool) -> None:
    """Refuse to replace what was not meant to be replaced, and a folder that is not there.

    Raises:
        ConfigurationError: naming the path.
    """
    if os.path.lexists(target) and not force:
        raise ConfigurationError(f"{target}: exists; choose another path, or pass --force")
    if not target.parent.is_dir():
        raise ConfigurationError(f"{target.parent}: no such folder; make it first")


def _require_room(target: Path, size: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise ConfigurationError(f"{target}: takes {size:,} bytes, {free:,} are free on that disk")


def _without_tied_copy(
    config: ModelConfig, tensors: Mapping[str, Tensor], path: Path
) -> Mapping[str, Tensor]:
    head = tensors.get(_HEAD)
    if not config.tie_word_embeddings or head is None:
        return tensors
    if not torch.equal(head, tensors[_EMBEDDING]):
        raise WeightsError(f"{path}: the head is tied, but {_HEAD} differs from {_EMBEDDING}")
    return {name: tensor for name, tensor in tensors.items() if name != _HEAD}
