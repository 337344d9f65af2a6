"""Writes APR v2 files: canonical, so that equal content gives equal bytes, and durable.

Header and index follow from names, shapes and dtypes, so a file is written in one pass, tensors
straight from their memory, while a second thread computes the checksum (zlib lets go of the GIL).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from trainer.errors import WeightsError
from trainer.weights import apr_layout as layout
from trainer.weights import apr_metadata
from trainer.weights.apr_file import TORCH_DTYPES, require_finite
from trainer.weights.durable import durable_file

_DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def write_apr(
    path: str | os.PathLike[str], metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write one file, whole or not at all (F-CKPT-009), in canonical order (F-CKPT-015).

    Args:
        path: the file; its folder must exist. What stands there is replaced.
        metadata: a JSON object; `config_metadata` gives the part that describes the model.
        tensors: CPU tensors of a dense dtype by name. They must not change until this returns.

    Raises:
        WeightsError: before anything is written: names, dtypes, shapes or values that a reader
            would refuse, or metadata that is no JSON.
        OSError: the file cannot be written. The partial file is removed.
    """
    target = Path(path)
    encoded = apr_metadata.encode_metadata(metadata, target)
    names = sorted(tensors, key=str.encode)
    entries = _entries(names, tensors, target)
    shapes = {entry.name: entry.shape for entry in entries}
    apr_metadata.check_shapes(shapes, metadata, target)
    for name in names:
        require_finite(name, tensors[name], target)
    index = layout.pack_index(entries)
    index_offset = layout.HEADER_SIZE + layout.aligned(len(encoded))
    header = layout.Header(
        flags=layout.ROW_MAJOR | (layout.HAS_VOCABULARY if _has_vocabulary(metadata) else 0),
        tensors=len(entries),
        metadata_offset=layout.HEADER_SIZE,
        metadata_size=len(encoded),
        index_offset=index_offset,
        data_offset=index_offset + layout.aligned(len(index)),
    )
    head = layout.pack_header(header) + _padded(encoded) + _padded(index)
    with durable_file(target) as file, ThreadPoolExecutor(max_workers=1) as pool:
        _stream(file, pool, head, [tensors[name] for name in names])


def _stream(file: BinaryIO, pool: ThreadPoolExecutor, head: bytes, tensors: list[Tensor]) -> None:
    checksum: Future[int] = pool.submit(zlib.crc32, head)
    file.write(head)
    for tensor in tensors:
        values = byte_view(tensor)
        padding = bytes(layout.aligned(len(values)) - len(values))
        checksum = pool.submit(_continued, checksum, values, padding)
        file.write(values)
        if padding:
            file.write(padding)
    file.write(struct.pack("<I", checksum.result()))


def _continued(before: Future[int], values: memoryview, padding: bytes) -> int:
    return zlib.crc32(padding, zlib.crc32(values, before.result()))


def byte_view(tensor: Tensor) -> memoryview:
    """The bytes of a CPU tensor in row-major order, without a copy where they lie so already."""
    flat = tensor.detach().contiguous().view(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


def _entries(names: list[str], tensors: Mapping[str, Tensor], path: Path) -> list[layout.Entry]:
    entries, offset = [], 0
    for name in names:
        tensor = tensors[name]
        _require_writable(name, tensor, path)
        dtype, shape = _DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)
        entries.append(layout.Entry(name, dtype, shape, offset, tensor.nbytes))
        offset += layout.aligned(tensor.nbytes)
    return entries


def _require_writable(name: str, tensor: Tensor, path: Path) -> None:
    length = len(name.encode())
    if not 1 <= length <= layout.MOST_NAME:
        raise WeightsError(
            f"{path}: the name {name!r} takes {length} bytes, not 1 to {layout.MOST_NAME}"
        )
    if tensor.dtype not in _DTYPE_NAMES:
        raise WeightsError(f"{path}: {name} is {tensor.dtype}, not one of {sorted(TORCH_DTYPES)}")
    if tensor.device.type != "cpu":
        raise WeightsError(f"{path}: {name} is on {tensor.device}; copy it to the CPU first")
    if tensor.ndim > layout.MOST_DIMENSIONS or not tensor.numel():
        raise WeightsError(
            f"{path}: {name} has shape {list(tensor.shape)}; "
            f"at most {layout.MOST_DIMENSIONS} dimensions, none of them 0, can be written"
        )


def _has_vocabulary(metadata: Mapping[str, Any]) -> bool:
    return bool(metadata.get("tokenizer.vocabulary"))


def _padded(section: bytes) -> bytes:
    return section.ljust(layout.aligned(len(section)), b"\0")
