"""Tensors and tensor names from safetensors files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainer.errors import WeightsError
from trainer.weights import safetensors_header

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def tensor_names(files: Sequence[Path]) -> set[str]:
    """Names of all tensors in `files`, from their headers alone.

    Raises:
        WeightsError: a file is damaged.
    """
    return {name for file in files for name in safetensors_header.read_header(file)}


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors in `files`, cast to float32; those of float32 are views of the mapped files.

    Raises:
        WeightsError: a file is damaged, a name is in two files, or a dtype is not a float one.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        safetensors_header.read_header(file)
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - the handle is not a mapping
                    if name in tensors:
                        raise WeightsError(f"{file}: {name} is also in another shard")
                    tensors[name] = _float32(opened.get_tensor(name), name, file)
        except (SafetensorError, OSError) as error:
            raise _damaged(file, error) from error
    return tensors


def _float32(tensor: Tensor, name: str, file: Path) -> Tensor:
    if tensor.dtype not in _FLOATS:
        raise WeightsError(f"{file}: {name} is {tensor.dtype}; only float weights can be trained")
    return tensor.float()


def _damaged(file: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{file}: not a whole safetensors file: {error}; fetch it again")
