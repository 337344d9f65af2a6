"""The tensors of a weight file, whatever its format, under their Hugging Face names."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from trainer.errors import WeightsError
from trainer.weights import apr_file, gguf_file, locate, safetensors_file
from trainer.weights.apr_file import AprFile


def load_init_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor behind `path`, float32 on the CPU, matrices ``[out, in]``.

    Quantised GGUF tensors are dequantised, so they are not the tensors that were once published.
    Of a checkpoint, the training state is left out. float32 tensors of safetensors and APR files
    are views of the mapped file, not copies.

    Raises:
        WeightsError: a file is missing, empty, damaged, or of no format known here.
        ArchitectureError: the file declares a family that cannot be trained here.
    """
    files = locate.locate(path)
    if files.format == "gguf":
        return gguf_file.read_tensors(path)
    if files.format == "apr":
        file = apr_file.opened(path)
        return {name: _float32(file, name) for name in file.model_names()}
    return safetensors_file.read_tensors(files.tensors)


def _float32(file: AprFile, name: str) -> Tensor:
    tensor = file.tensor(name)
    if not tensor.is_floating_point():
        raise WeightsError(
            f"{file.path}: {name} is {tensor.dtype}; only float weights can be trained"
        )
    return tensor.float()
