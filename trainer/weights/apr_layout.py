"""The byte layout of APR v2: header and tensor index, both ways, without torch.

All integers are little-endian, and every section and every tensor starts on a 64-byte boundary::

    header 64 | metadata (JSON) | tensor index, sorted by name | data | CRC-32 of all before it, 4

Whoever made the file may have made its checksums match, so every number that is read here is held
against the file's length, in Python's unbounded integers, before anything is done with it.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from trainer.errors import NewerWeights, WeightsError

MAGIC = b"APR\0"
LEGACY_MAGIC = b"APRN"
VERSION = (2, 0)
ALIGNMENT = 64
HEADER_SIZE = 64
FOOTER_SIZE = 4
MOST_METADATA = 16 << 20
MOST_NAME = 256
MOST_DIMENSIONS = 8
LARGEST_DIMENSION = 2**63 - 1
_SMALLEST_ENTRY = 2 + 1 + 1 + 8 + 8 + 8

HAS_VOCABULARY = 0x200
ROW_MAJOR = 0x400
_REFUSED_FLAGS = {
    0x001: "LZ4 compression",
    0x002: "Zstd compression",
    0x004: "encryption",
    0x010: "sharding",
    0x800: "column-major matrices",
}
_KNOWN_FLAGS = 0xFFF

DENSE_WIDTHS = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float64": 8,
    "int32": 4,
    "int64": 8,
    "int8": 1,
    "uint8": 1,
}
"""Bytes an element, by name of a dtype that can be written."""

CODES = {
    "float32": 0,
    "float16": 1,
    "float64": 3,
    "int32": 4,
    "int64": 5,
    "int8": 6,
    "uint8": 7,
    "bfloat16": 30,
}
_NAMES = {code: name for name, code in CODES.items()} | {
    2: "bfloat16",  # written by older versions, as are 8 and 9
    8: "q4",
    9: "q8",
    12: "Q4_K",
    14: "Q6_K",
    128: "q4",
    129: "q8",
}
_K_QUANT_BLOCK = 256
_K_QUANT_BYTES = {"Q4_K": 144, "Q6_K": 210}

# 0..40 without the checksum, the checksum, and the reserved bytes.
_FIELDS = struct.Struct("<4sBBHIQIQQ")
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True)
class Header:
    """What the first 64 bytes say. Offsets are from the start of the file."""

    flags: int
    tensors: int
    metadata_offset: int
    metadata_size: int
    index_offset: int
    data_offset: int


@dataclass(frozen=True)
class Entry:
    """One tensor: its dtype by name, its row-major shape, and its bytes from the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def aligned(size: int) -> int:
    """The next multiple of 64."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def refuse(path: Path, field: str, found: object, needed: object) -> NoReturn:
    """Say which field of which file holds what, and what it should hold.

    Raises:
        WeightsError: always.
    """
    raise WeightsError(
        f"{path}: damaged or not an APR v2 file: {field} is {found}, but {needed}; "
        "fetch or write the file again"
    )


def pack_header(header: Header) -> bytes:
    """The 64 bytes of a header, checksum included."""
    fields = _FIELDS.pack(
        MAGIC,
        *VERSION,
        header.flags,
        header.tensors,
        header.metadata_offset,
        header.metadata_size,
        header.index_offset,
        header.data_offset,
    )
    reserved = bytes(HEADER_SIZE - len(fields) - _CHECKSUM.size)
    return fields + _CHECKSUM.pack(zlib.crc32(reserved, zlib.crc32(fields))) + reserved


def read_header(start: bytes, length: int, path: Path) -> Header:
    """The header of a file of `length` bytes that begins with `start`.

    Raises:
        NewerWeights: it has a later version.
        WeightsError: it is another format, a version or feature that is not read, or impossible.
    """
    if start[:4] == LEGACY_MAGIC:
        raise WeightsError(f"{path}: a file of APR v1 ('APRN'), only v2 is read; convert it first")
    if start[:4] != MAGIC:
        refuse(path, "magic", start[:4], f"{MAGIC!r} is needed")
    if length < HEADER_SIZE + FOOTER_SIZE:
        refuse(path, "file length", length, f"at least {HEADER_SIZE + FOOTER_SIZE} are needed")
    _, major, minor, *numbers = _FIELDS.unpack_from(start)
    (stored,) = _CHECKSUM.unpack_from(start, _FIELDS.size)
    reserved = start[_FIELDS.size + _CHECKSUM.size : HEADER_SIZE]
    computed = zlib.crc32(reserved, zlib.crc32(start[: _FIELDS.size]))
    if stored != computed:
        refuse(path, "header checksum", f"{stored:#010x}", f"its bytes give {computed:#010x}")
    if (major, minor) > VERSION:
        raise NewerWeights(
            f"{path}: the APR format's version is {major}.{minor}, but only 2.0 is read; "
            "use the version of the trainer that wrote the file"
        )
    if (major, minor) != VERSION:
        refuse(path, "version", f"{major}.{minor}", "only 2.0 is read")
    if any(reserved):
        refuse(path, "reserved bytes 44..64", reserved.hex(), "they must be zero")
    header = Header(*numbers)
    _check_flags(header.flags, path)
    _check_sections(header, length, path)
    return header


def _check_flags(flags: int, path: Path) -> None:
    for bit, feature in _REFUSED_FLAGS.items():
        if flags & bit:
            raise WeightsError(
                f"{path}: flags {flags:#06x} declare {feature} ({bit:#05x}), which is not read; "
                "write the file without it"
            )
    if flags & ~_KNOWN_FLAGS:
        refuse(path, "flags", f"{flags:#06x}", f"only {_KNOWN_FLAGS:#06x} have a meaning")


def _check_sections(header: Header, length: int, path: Path) -> None:
    if header.metadata_offset != HEADER_SIZE:
        refuse(path, "metadata offset", header.metadata_offset, f"it must be {HEADER_SIZE}")
    if header.metadata_size > MOST_METADATA:
        refuse(path, "metadata size", header.metadata_size, f"at most {MOST_METADATA} is allowed")
    metadata_end = HEADER_SIZE + header.metadata_size
    sections = (
        ("tensor index offset", header.index_offset, metadata_end, "the metadata ends"),
        ("data offset", header.data_offset, header.index_offset, "the tensor index starts"),
        ("file length without its footer", length - FOOTER_SIZE, header.data_offset, "data starts"),
    )
    for field, found, least, where in sections:
        if found < least:
            refuse(path, field, found, f"{where} at {least}")
    for field, found in (
        ("tensor index offset", header.index_offset),
        ("data offset", header.data_offset),
    ):
        if found % ALIGNMENT:
            refuse(path, field, found, f"it must be a multiple of {ALIGNMENT}")
    room = header.data_offset - header.index_offset
    if header.tensors * _SMALLEST_ENTRY > room:
        refuse(path, "tensor count", header.tensors, f"the index has room for {room} bytes")


def pack_index(entries: Iterable[Entry]) -> bytes:
    """The tensor index, without its padding."""
    packed = bytearray()
    for entry in entries:
        name = entry.name.encode()
        packed += struct.pack("<H", len(name)) + name
        packed += struct.pack("<BB", CODES[entry.dtype], len(entry.shape))
        packed += struct.pack(f"<{len(entry.shape)}QQQ", *entry.shape, entry.offset, entry.size)
    return bytes(packed)


def read_index(index: memoryview, header: Header, length: int, path: Path) -> list[Entry]:
    """The entries of the index section, whose bytes are `index`, in a file of `length` bytes.

    Raises:
        WeightsError: an entry is impossible, names are not sorted, or ranges overlap.
    """
    cursor = _Cursor(index, path)
    data_size = length - FOOTER_SIZE - header.data_offset
    entries: list[Entry] = []
    last = b""
    for number in range(header.tensors):
        raw, entry = cursor.entry(f"tensor {number} of {header.tensors}")
        if raw <= last:
            refuse(path, "tensor index", f"{entry.name!r} after {last.decode()!r}", _ORDER)
        if entry.offset % ALIGNMENT:
            refuse(path, f"offset of {entry.name}", entry.offset, f"{ALIGNMENT} must divide it")
        if entry.offset + entry.size > data_size:
            end = entry.offset + entry.size
            refuse(path, f"end of {entry.name}", end, f"the data section has {data_size} bytes")
        last = raw
        entries.append(entry)
    by_offset = sorted(entries, key=lambda entry: entry.offset)
    for before, after in itertools.pairwise(by_offset):
        end = before.offset + before.size
        if after.offset < end:
            refuse(path, f"offset of {after.name}", after.offset, f"{before.name} ends at {end}")
    return entries


_ORDER = "names must be unique and sorted by their bytes"


class _Cursor:
    """Reads the index forwards, and never beyond its end."""

    def __init__(self, index: memoryview, path: Path) -> None:
        self._index, self._path, self._at = index, path, 0

    def entry(self, label: str) -> tuple[bytes, Entry]:
        """The next entry, and the bytes of its name."""
        path = self._path
        (name_length,) = self._numbers("H", 1, f"name length of {label}")
        if not 1 <= name_length <= MOST_NAME:
            refuse(path, f"name length of {label}", name_length, f"1 to {MOST_NAME} is allowed")
        raw = self._take(name_length, f"name of {label}")
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            refuse(path, f"name of {label}", raw, "it must be UTF-8")
        code, dimensions = self._numbers("B", 2, f"dtype of {name!r}")
        if code not in _NAMES:
            refuse(path, f"dtype of {name!r}", code, f"{sorted(_NAMES)} are known")
        if dimensions > MOST_DIMENSIONS:
            refuse(
                path, f"dimensions of {name!r}", dimensions, f"at most {MOST_DIMENSIONS} is allowed"
            )
        shape = self._numbers("Q", dimensions, f"shape of {name!r}")
        if not all(1 <= dimension <= LARGEST_DIMENSION for dimension in shape):
            refuse(path, f"shape of {name!r}", list(shape), f"1 to {LARGEST_DIMENSION} is allowed")
        offset, size = self._numbers("Q", 2, f"range of {name!r}")
        needed = stored_size(_NAMES[code], shape)
        if size != needed:
            takes = "whole blocks of 256 values" if needed is None else needed
            what = f"{_NAMES[code]} {list(shape)} takes {takes}"
            refuse(path, f"size in bytes of {name!r}", size, what)
        return raw, Entry(name, _NAMES[code], shape, offset, size)

    def _numbers(self, code: str, count: int, label: str) -> tuple[int, ...]:
        layout = struct.Struct(f"<{count}{code}")
        return layout.unpack(self._take(layout.size, label))

    def _take(self, size: int, label: str) -> bytes:
        end = self._at + size
        if end > len(self._index):
            refuse(
                self._path, f"end of the {label}", end, f"the index has {len(self._index)} bytes"
            )
        taken = bytes(self._index[self._at : end])
        self._at = end
        return taken


def stored_size(dtype: str, shape: tuple[int, ...]) -> int | None:
    """Bytes that a tensor takes, or None where its blocks do not divide it."""
    count = math.prod(shape)
    if dtype in DENSE_WIDTHS:
        return DENSE_WIDTHS[dtype] * count
    if dtype == "q8":
        return 4 + count
    if dtype == "q4":
        return 18 * -(-count // 32)
    blocks, rest = divmod(count, _K_QUANT_BLOCK)
    return None if rest else _K_QUANT_BYTES[dtype] * blocks
