"""Reads APR v2 files from the published layout alone, so that no writer is its own judge.

Only what claims about a training run need: both checksums, the index, float32 tensors, metadata.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = 64
_ALIGNMENT = 64
_CHUNK = 1 << 26
_FLOAT32 = 0
_ROW_MAJOR, _UNREAD_FLAGS = 0x400, 0x001 | 0x002 | 0x004 | 0x010 | 0x800


class AprDamaged(ValueError):
    """The file is not a whole APR v2 file; the message says where."""


@dataclass(frozen=True)
class _Entry:
    shape: tuple[int, ...]
    offset: int
    size: int


class AprContainer:
    """A verified file, memory-mapped.

    Attributes:
        metadata: the JSON object of the file.
        checksum: CRC-32 of everything before the footer, recomputed.

    Raises:
        AprDamaged: magic, version, a checksum or a place in the file is wrong.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if path.stat().st_size < _HEADER + 4:
            raise AprDamaged(f"{path.name}: {path.stat().st_size} bytes are no file of this format")
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        self.name = path.name
        header = self._bytes[:_HEADER].tobytes()
        if header[:4] != b"APR\0" or header[4] != 2:
            raise AprDamaged(f"{path.name}: magic and version are {header[:6]!r}, not APR v2")
        self._require_checksums(header)
        flags, count = struct.unpack_from("<HI", header, 6)
        if flags & _UNREAD_FLAGS or not flags & _ROW_MAJOR:
            raise AprDamaged(
                f"{path.name}: flags {flags:#x} are not those of a plain row-major file"
            )
        start, size, index, self._data = struct.unpack_from("<QIQQ", header, 12)
        self.metadata: dict[str, Any] = json.loads(self._slice(start, size))
        self._entries = self._read_index(index, count)

    @property
    def names(self) -> list[str]:
        """Every tensor, in the order of the file."""
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""
        return self._entries[name].shape

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor as float32 of its shape, mapped and not copied."""
        entry = self._entries[name]
        start = self._data + entry.offset
        raw = self._bytes[start : start + entry.size]
        return raw.view("<f4").reshape(entry.shape)

    def _require_checksums(self, header: bytes) -> None:
        (stored,) = struct.unpack_from("<I", header, 40)
        found = zlib.crc32(header[:40] + header[44:])
        if stored != found:
            raise AprDamaged(f"{self.name}: header checksum {stored:08x}, its bytes {found:08x}")
        end, found = len(self._bytes) - 4, 0
        for at in range(0, end, _CHUNK):
            found = zlib.crc32(self._bytes[at : min(at + _CHUNK, end)].data, found)
        (stored,) = struct.unpack("<I", self._bytes[end:].tobytes())
        if stored != found:
            raise AprDamaged(f"{self.name}: footer checksum {stored:08x}, its bytes {found:08x}")
        self.checksum = found

    def _slice(self, start: int, size: int) -> bytes:
        if start + size > len(self._bytes) - 4:
            raise AprDamaged(f"{self.name}: bytes {start} to {start + size} are past the end")
        return self._bytes[start : start + size].tobytes()

    def _read_index(self, at: int, count: int) -> dict[str, _Entry]:
        entries: dict[str, _Entry] = {}
        for _ in range(count):
            (length,) = struct.unpack("<H", self._slice(at, 2))
            name = self._slice(at + 2, length).decode()
            dtype, ndim = self._slice(at + 2 + length, 2)
            fields = self._slice(at + 4 + length, 8 * (ndim + 2))
            *shape, offset, size = struct.unpack(f"<{ndim + 2}Q", fields)
            if dtype != _FLOAT32 or size != 4 * math.prod(shape) or offset % _ALIGNMENT:
                raise AprDamaged(f"{self.name}: {name} is no aligned float32 tensor of {shape}")
            self._require_inside(name, offset, size)
            entries[name] = _Entry(tuple(shape), offset, size)
            at += 4 + length + 8 * (ndim + 2)
        if list(entries) != sorted(entries, key=str.encode) or len(entries) != count:
            raise AprDamaged(f"{self.name}: names are not sorted and unique")
        return entries

    def _require_inside(self, name: str, offset: int, size: int) -> None:
        if self._data + offset + size > len(self._bytes) - 4:
            raise AprDamaged(f"{self.name}: {name} is past the end of the file")
