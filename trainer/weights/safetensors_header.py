"""The header of a safetensors file, checked against the file before anything else reads it.

Layout (format by Hugging Face): u64 LE header size, JSON, then data without gaps. The library
checks the same, but its errors name neither the tensor nor the numbers (F-CKPT-012).
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from trainer.errors import WeightsError

_SIZE = struct.Struct("<Q")
MOST_HEADER = 100_000_000
"""The library's own limit, in bytes."""

WIDTHS = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
"""Bytes an element, by the format's name of the dtype."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: the format's dtype name, the row-major shape, bytes from the data's start."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Every tensor of a file, in the order of its data; reads the header only.

    Raises:
        WeightsError: naming the file, the field, what it holds and what is possible.
    """
    try:
        with path.open("rb") as file:
            length = path.stat().st_size
            start = file.read(_SIZE.size)
            if len(start) < _SIZE.size:
                _refuse(path, "file length", length, f"the header size alone takes {_SIZE.size}")
            (size,) = _SIZE.unpack(start)
            room = min(length - _SIZE.size, MOST_HEADER)
            if size > room:
                _refuse(path, "header size", size, f"at most {room} bytes are possible")
            header = _parsed(file.read(size), path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    tensors = {name: _info(name, value, path) for name, value in header.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)))
    _check_ranges(ordered, length - _SIZE.size - size, path)
    return ordered


def _parsed(encoded: bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(encoded.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        _refuse(path, "header", f"no JSON ({error})", "one JSON object is needed")
    if not isinstance(found, dict):
        _refuse(path, "header", f"a {type(found).__name__}", "one JSON object is needed")
    found.pop("__metadata__", None)
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _info(name: str, value: Any, path: Path) -> TensorInfo:
    fields = value if isinstance(value, dict) else {}
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        _refuse(path, f"dtype of {name}", repr(dtype), f"one of {', '.join(WIDTHS)} is needed")
    if not _sizes(shape):
        _refuse(path, f"shape of {name}", repr(shape), "a list of sizes is needed")
    if not _sizes(offsets) or len(offsets) != 2:
        _refuse(path, f"data_offsets of {name}", repr(offsets), "start and end are needed")
    start, end = offsets
    needed = WIDTHS[dtype] * math.prod(shape)
    if end - start != needed:
        _refuse(path, f"size in bytes of {name}", end - start, f"{dtype} {shape} takes {needed}")
    return TensorInfo(dtype, tuple(shape), start, end)


def _sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_ranges(tensors: dict[str, TensorInfo], data_size: int, path: Path) -> None:
    reached = 0
    for name, info in tensors.items():
        if info.start != reached:
            _refuse(path, f"start of {name}", info.start, f"the tensor before it ends at {reached}")
        reached = info.end
    if reached != data_size:
        _refuse(path, "end of the last tensor", reached, f"the file has {data_size} bytes of data")


def _refuse(path: Path, field: str, found: object, needed: object) -> NoReturn:
    raise WeightsError(
        f"{path}: not a whole safetensors file (F-CKPT-012): {field} is {found}, but {needed}; "
        "fetch it again"
    )
