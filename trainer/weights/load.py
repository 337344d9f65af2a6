"""The tensors of a weight file, whatever its format, under their Hugging Face names."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from trainer.weights import gguf_file, locate, safetensors_file


def load_init_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor behind `path`, float32 on the CPU, matrices ``[out, in]``.

    Quantised GGUF tensors are dequantised, so they are not the tensors that were once published.

    Raises:
        WeightsError: a file is missing, empty, damaged, or of no format known here.
        ArchitectureError: the file declares a family that cannot be trained here.
    """
    files = locate.locate(path)
    if files.is_gguf:
        return gguf_file.read_tensors(path)
    return safetensors_file.read_tensors(files.tensors)
