"""An APR v2 file, mapped into memory: metadata at once, tensors without a copy."""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from trainer.errors import WeightsError
from trainer.weights import apr_layout as layout
from trainer.weights import apr_metadata
from trainer.weights.apr_metadata import TRAINING_PREFIX

_CRC_PIECE = 8 << 20
TORCH_DTYPES: Mapping[str, torch.dtype] = {
    name: getattr(torch, name) for name in layout.DENSE_WIDTHS
}


class AprFile:
    """An opened APR file; everything but the values of its tensors is verified.

    Attributes:
        metadata: the JSON object.
        entries: dtype, shape and place of each tensor by name, in the file's order.
        header: the first 64 bytes.
        checksum: the CRC-32 at the end of the file, which its bytes were found to have.

    Raises:
        WeightsError: missing, damaged, not this version, or of shapes that contradict its metadata.
        ArchitectureError: its metadata declares an impossible decoder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        view = memoryview(_mapped(self.path))
        self._view: memoryview | None = view
        header = layout.read_header(bytes(view[: layout.HEADER_SIZE]), len(view), self.path)
        self.header = header
        self.checksum = _verified_checksum(view, self.path)
        metadata_end = header.metadata_offset + header.metadata_size
        self.metadata: dict[str, Any] = apr_metadata.decode_metadata(
            bytes(view[header.metadata_offset : metadata_end]), self.path
        )
        index = view[header.index_offset : header.data_offset]
        entries = layout.read_index(index, header, len(view), self.path)
        self.entries: dict[str, layout.Entry] = {entry.name: entry for entry in entries}
        shapes = {entry.name: entry.shape for entry in entries}
        apr_metadata.check_shapes(shapes, self.metadata, self.path)

    def names(self) -> list[str]:
        """Names of all tensors, training state included, sorted by their bytes."""
        return list(self.entries)

    def model_names(self) -> list[str]:
        """Names of the model's own tensors, which is all that inference needs (F-CKPT-016)."""
        return [name for name in self.entries if not name.startswith(TRAINING_PREFIX)]

    def tensor(self, name: str) -> Tensor:
        """A view of the mapping in the tensor's own dtype, on the CPU.

        The mapping is private to the process: writing to the view changes neither the file nor
        what others read, but the view is meant to be read. It stays valid after `close`.

        Raises:
            WeightsError: there is no such tensor, it is quantised, it holds NaN or Inf, or the
                file was closed.
        """
        if self._view is None:
            raise WeightsError(f"{self.path}: {name} was asked for after the file was closed")
        entry = self.entries.get(name)
        if entry is None:
            raise WeightsError(f"{self.path}: no tensor {name!r} among {len(self.entries)}")
        if entry.dtype not in TORCH_DTYPES:
            raise WeightsError(
                f"{self.path}: {name} is quantised as {entry.dtype}, which is not read; "
                "convert the file to a float dtype"
            )
        dtype = TORCH_DTYPES[entry.dtype]
        values = torch.frombuffer(
            self._view,
            dtype=dtype,
            count=entry.size // dtype.itemsize,
            offset=self.header.data_offset + entry.offset,
        ).view(entry.shape)
        require_finite(name, values, self.path)
        return values

    def close(self) -> None:
        """Let go of the mapping; it ends with the last tensor that is a view of it."""
        self._view = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def opened(path: Path) -> AprFile:
    """The latest file, kept: a command asks for architecture, tensors and tokenizer one by one.

    Raises:
        WeightsError, ArchitectureError: see `AprFile`.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; check the path") from error
    identity = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
    return _opened(path, identity)


@lru_cache(maxsize=1)
def _opened(path: Path, identity: tuple[int, ...]) -> AprFile:
    return AprFile(path)


def require_finite(name: str, values: Tensor, path: Path) -> None:
    """F-CKPT-007, F-CKPT-013: no NaN or Inf is written or read.

    Raises:
        WeightsError: naming the tensor and how many of its values are not finite.
    """
    if not values.is_floating_point() or not values.numel():
        return
    # One pass without a mask as large as the tensor: NaN propagates to both ends.
    if all(end.isfinite() for end in values.aminmax()):
        return
    count = int((~values.isfinite()).sum())
    raise WeightsError(
        f"{path}: F-CKPT-007: {name} holds {count} NaN or Inf among {values.numel()} values"
    )


def _mapped(path: Path) -> mmap.mmap:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; check the path")
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length < layout.HEADER_SIZE + layout.FOOTER_SIZE:
                # Another format, if it is so short; the header's own check says which.
                layout.read_header(file.read(), length, path)
            return mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error


def _verified_checksum(view: memoryview, path: Path) -> int:
    end = len(view) - layout.FOOTER_SIZE
    computed = 0
    for start in range(0, end, _CRC_PIECE):
        computed = zlib.crc32(view[start : min(start + _CRC_PIECE, end)], computed)
    (stored,) = struct.unpack("<I", view[end:])
    if stored != computed:
        layout.refuse(
            path,
            "file checksum (F-CKPT-011)",
            f"{stored:#010x}",
            f"its bytes give {computed:#010x}",
        )
    return computed
