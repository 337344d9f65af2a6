"""Which files a path to initial weights stands for, and in which format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.errors import WeightsError
from trainer.weights.apr_layout import LEGACY_MAGIC, MAGIC

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class WeightFiles:
    """Files that exist and are not empty.

    Attributes:
        tensors: the files with tensors, one or several shards.
        config: the Hugging Face config.json; None for GGUF and APR, which carry their metadata.
        format: which reader they need.
    """

    tensors: tuple[Path, ...]
    config: Path | None
    format: Literal["safetensors", "gguf", "apr"]


def locate(path: Path) -> WeightFiles:
    """The files behind `path`: a Hugging Face folder, a .safetensors, a GGUF or an APR file.

    Raises:
        WeightsError: something is missing, empty, or of no format known here.
    """
    if path.is_dir():
        return WeightFiles(_shards(path), _present(path / "config.json"), "safetensors")
    with _present(path).open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        return WeightFiles((path,), None, "gguf")
    if magic in (MAGIC, LEGACY_MAGIC):
        return WeightFiles((path,), None, "apr")
    if path.suffix == ".safetensors":
        return WeightFiles((path,), _present(path.with_name("config.json")), "safetensors")
    raise WeightsError(
        f"{path}: neither GGUF magic nor APR magic nor a .safetensors file; "
        "pass a Hugging Face folder, a .safetensors, a GGUF or an APR file"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        WeightsError: it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: a JSON object is needed, not {type(content).__name__}")
    return content


def _shards(folder: Path) -> tuple[Path, ...]:
    index = folder / INDEX
    if not index.exists():
        return (_present(folder / "model.safetensors"),)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{index}: weight_map is missing or empty")
    names = sorted({str(name) for name in weight_map.values()})
    if any(Path(name).name != name for name in names):
        raise WeightsError(f"{index}: a shard lies outside the folder: {names}")
    return tuple(_present(folder / name) for name in names)


def _present(path: Path) -> Path:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; check the path to the initial weights")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path}: the file is empty; fetch it again")
    return path
