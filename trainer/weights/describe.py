"""What is in a weight file: format, architecture, sizes, training position, checksums."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer import config as configurations
from trainer.errors import TrainerError, WeightsError
from trainer.weights import apr_file, locate, safetensors_header
from trainer.weights.apr_metadata import TRAINING_PREFIX
from trainer.weights.apr_tokenizer import VOCABULARY
from trainer.weights.architecture import read_architecture
from trainer.weights.gguf_file import GgufFile

_LONGEST_TEXT = 100
_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""safetensors and GGUF spell them alike."""

Stored = tuple[str, str, int, int]
"""Name, dtype, number of values and size in bytes of a tensor."""


def describe(path: Path) -> dict[str, Any]:
    """A description that can be printed as JSON.

    Keys: `path`, `format`, `file_bytes`, `architecture` (the fields of `ModelConfig`, or None with
    `architecture_absent_reason`), `parameters` (`nominal` counts a tied head, `stored` does not;
    both as the architecture implies; `in_file` is what is there), `dtypes` (by dtype: tensors,
    values, bytes), `training` (position of a checkpoint, or None), `training_state`, `tokenizer`
    (ids, or None), `checksums` (those verified, or None where the format has none).

    Raises:
        WeightsError: missing, damaged, or of no format known here.
    """
    if path.is_dir() or path.suffix == ".safetensors":
        report = _safetensors(path)
    elif _magic(path) == b"GGUF":
        report = _gguf(path)
    else:
        locate.locate(path)
        report = _apr(path)
    return {"path": str(path), **report, **_architecture(path, report)}


def _magic(path: Path) -> bytes:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; check the path")
    with path.open("rb") as file:
        return file.read(4)


def _architecture(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    in_file = sum(row["values"] for row in report["dtypes"].values())
    try:
        config = read_architecture(path)
    except TrainerError as error:
        return {
            "architecture": None,
            "architecture_absent_reason": str(error),
            "parameters": {"in_file": in_file},
        }
    return {
        "architecture": asdict(config),
        "parameters": {
            "nominal": configurations.nominal_parameters(config),
            "stored": configurations.stored_parameters(config),
            "in_file": in_file,
        },
    }


def _apr(path: Path) -> dict[str, Any]:
    file = apr_file.opened(path)
    stored = [
        (entry.name, entry.dtype, math.prod(entry.shape), entry.size)
        for entry in file.entries.values()
    ]
    state = [row for row in stored if row[0].startswith(TRAINING_PREFIX)]
    vocabulary = file.metadata.get(VOCABULARY)
    return {
        "format": "apr",
        "file_bytes": path.stat().st_size,
        "dtypes": _table(row for row in stored if not row[0].startswith(TRAINING_PREFIX)),
        "training": _shortened(file.metadata.get("training")),
        "training_state": _table(state) if state else None,
        "tokenizer": len(vocabulary) if isinstance(vocabulary, list) else None,
        "checksums": {"header_crc32": "verified", "file_crc32": f"verified {file.checksum:08x}"},
    }


def _gguf(path: Path) -> dict[str, Any]:
    file = GgufFile(path)
    stored = (
        (
            name,
            _FLOATS.get(tensor.tensor_type.name, tensor.tensor_type.name),
            int(tensor.n_elements),
            int(tensor.n_bytes),
        )
        for name, tensor in file.tensors.items()
    )
    key = "tokenizer.ggml.tokens"
    return {
        "format": "gguf",
        "file_bytes": path.stat().st_size,
        "dtypes": _table(stored),
        "training": None,
        "training_state": None,
        "tokenizer": len(file.field(key)) if file.has_field(key) else None,
        "checksums": None,
    }


def _safetensors(path: Path) -> dict[str, Any]:
    files = locate.locate(path).tensors if path.is_dir() else (path,)
    stored = [
        (
            name,
            _FLOATS.get(info.dtype, info.dtype),
            math.prod(info.shape),
            info.end - info.start,
        )
        for file in files
        for name, info in safetensors_header.read_header(file).items()
    ]
    return {
        "format": "safetensors",
        "file_bytes": sum(file.stat().st_size for file in files),
        "dtypes": _table(stored),
        "training": None,
        "training_state": None,
        "tokenizer": None,
        "checksums": None,
    }


def _table(stored: Iterable[Stored]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for _, dtype, values, size in stored:
        row = table.setdefault(dtype, {"tensors": 0, "values": 0, "bytes": 0})
        row["tensors"] += 1
        row["values"] += values
        row["bytes"] += size
    return table


def _shortened(value: Any) -> Any:
    """`value` without texts that nobody reads, such as the state of a random generator."""
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"({len(value)} characters)"
    return value
