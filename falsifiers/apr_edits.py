"""Takes APR v2 files apart and writes them again, changed, with checksums that match.

A damaged file is found by its checksums; whether anything else is checked shows only on a file
whose checksums are right. Written from the published layout alone, as `apr_container` is.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falsifiers.apr_container import AprContainer

HEADER = 64
FOOTER = 4
_ALIGNMENT = 64
_CHECKSUM_AT = 40
_ROW_MAJOR = 0x400


@dataclass
class Entry:
    """One tensor of the index, as it will be written, possible or not."""

    name: str
    shape: tuple[int, ...]
    offset: int
    size: int
    dtype: int = 0

    def packed(self) -> bytes:
        """Bytes of the entry."""
        name = self.name.encode()
        numbers = (*self.shape, self.offset, self.size)
        layout = f"<H{len(name)}sBB{len(numbers)}Q"
        return struct.pack(layout, len(name), name, self.dtype, len(self.shape), *numbers)


@dataclass
class AprParts:
    """Content of a file, to be changed and packed.

    Attributes:
        metadata: the JSON object.
        tensors: float32 by name.
        edit_index: changes the entries before they are written.
        edit_header: changes the 64 bytes of the header before its checksum is computed.
        reverse_data: store the tensors' bytes in the reverse of the index's order.
    """

    metadata: dict[str, Any]
    tensors: dict[str, NDArray[np.float32]]
    edit_index: Callable[[list[Entry]], None] | None = None
    edit_header: Callable[[bytearray], None] | None = None
    reverse_data: bool = False

    def packed(self) -> bytes:
        """The whole file, both checksums right."""
        entries, data = self._placed()
        if self.edit_index is not None:
            self.edit_index(entries)
        metadata = json.dumps(self.metadata, ensure_ascii=False).encode()
        index = b"".join(entry.packed() for entry in entries)
        index_at = HEADER + _aligned(len(metadata))
        header = bytearray(HEADER)
        fields = (_ROW_MAJOR, len(entries), HEADER, len(metadata), index_at)
        struct.pack_into("<4sBBHIQIQ", header, 0, b"APR\0", 2, 0, *fields)
        struct.pack_into("<Q", header, 32, index_at + _aligned(len(index)))
        if self.edit_header is not None:
            self.edit_header(header)
        return resealed(bytes(header) + _padded(metadata) + _padded(index) + data + bytes(FOOTER))

    def _placed(self) -> tuple[list[Entry], bytes]:
        names = sorted(self.tensors, key=str.encode)
        data, offsets = bytearray(), {}
        for name in reversed(names) if self.reverse_data else names:
            offsets[name] = len(data)
            data += _padded(self.tensors[name].tobytes())
        entries = [
            Entry(n, self.tensors[n].shape, offsets[n], self.tensors[n].nbytes) for n in names
        ]
        return entries, bytes(data)


def taken_apart(path: Path) -> AprParts:
    """The content of a whole file. Raises AprDamaged."""
    file = AprContainer(path)
    return AprParts(file.metadata, {name: file.tensor(name).copy() for name in file.names})


def resealed(content: bytes) -> bytes:
    """The same bytes with both checksums made to match."""
    sealed = bytearray(content)
    checksum = zlib.crc32(sealed[:_CHECKSUM_AT] + sealed[_CHECKSUM_AT + 4 : HEADER])
    struct.pack_into("<I", sealed, _CHECKSUM_AT, checksum)
    return with_footer(bytes(sealed))


def with_footer(content: bytes) -> bytes:
    """The same bytes with the checksum at the end made to match, the header's left alone."""
    body = content[:-FOOTER]
    return body + struct.pack("<I", zlib.crc32(body))


def section_bounds(content: bytes) -> list[int]:
    """Where header, metadata, index, data and footer of a whole file end, in bytes."""
    (index_at,) = struct.unpack_from("<Q", content, 24)
    (data_at,) = struct.unpack_from("<Q", content, 32)
    return [HEADER, index_at, data_at, len(content) - FOOTER, len(content)]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _padded(section: bytes) -> bytes:
    return section.ljust(_aligned(len(section)), b"\0")
