"""APR v2: what is written comes back, and a damaged file is one clear refusal."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainer.conftest import LLAMA, QWEN2
from trainer.config import ModelConfig
from trainer.errors import ArchitectureError, TrainerError, WeightsError
from trainer.model.decoder import Decoder
from trainer.weights import apr_file, apr_layout, durable
from trainer.weights.apr_file import AprFile
from trainer.weights.apr_metadata import config_from_metadata, config_metadata
from trainer.weights.apr_writer import write_apr
from trainer.weights.architecture import read_architecture
from trainer.weights.durable import partial_path
from trainer.weights.load import load_init_tensors

MakeModel = Callable[..., Decoder]
DENSE = [getattr(torch, name) for name in apr_layout.DENSE_WIDTHS]


def tensors_of(model: Decoder) -> dict[str, Tensor]:
    """The model's own tensors, and moments for one of them."""
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    prefix = "__training__.optim.model.norm.weight"
    moments = {f"{prefix}.exp_avg": torch.rand(32), f"{prefix}.exp_avg_sq": torch.rand(32)}
    return tensors | moments


@pytest.fixture
def checkpoint(tmp_path: Path, make_model: MakeModel) -> Path:
    """A tiny Llama with some training state."""
    path = tmp_path / "model.apr"
    metadata = config_metadata(LLAMA) | {"training": {"step": 5}}
    write_apr(path, metadata, tensors_of(make_model(LLAMA)))
    return path


def test_every_bit_comes_back(config: ModelConfig, make_model: MakeModel, tmp_path: Path) -> None:
    """Architecture, model and training tensors; inference sees only the model's (F-CKPT-016)."""
    model, path = make_model(config), tmp_path / "model.apr"
    written = tensors_of(model)
    write_apr(path, config_metadata(config), written)
    with AprFile(path) as file:
        assert file.names() == sorted(written)
        for name, tensor in written.items():
            assert torch.equal(file.tensor(name), tensor), name
    assert read_architecture(path) == config
    loaded = load_init_tensors(path)
    assert loaded.keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("dtype", DENSE, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 1, 2, 1, 2, 1, 2, 3)])
def test_every_dense_dtype_and_rank_comes_back(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    """Scalars to eight dimensions, also from memory that is not contiguous."""
    tensor = (torch.randn(shape) * 50).to(dtype)
    transposed = (torch.randn(7, 3) * 50).to(dtype).T
    write_apr(tmp_path / "x.apr", {}, {"x": tensor, "t": transposed})
    file = AprFile(tmp_path / "x.apr")
    assert file.tensor("x").dtype == dtype
    assert torch.equal(file.tensor("x"), tensor)
    assert torch.equal(file.tensor("t"), transposed)


def test_saving_what_was_loaded_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    """F-CKPT-015: save(load(f)) == f, whatever the order in which things are given."""
    file, again = AprFile(checkpoint), tmp_path / "again.apr"
    names = reversed(file.names())
    metadata = dict(reversed(file.metadata.items()))
    write_apr(again, metadata, {name: file.tensor(name) for name in names})
    assert again.read_bytes() == checkpoint.read_bytes()


def test_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    """One file, spelled out byte by byte from the format's page."""
    path = tmp_path / "x.apr"
    write_apr(path, {"a": 1}, {"w": torch.tensor([[1.0, 2.0]])})
    header = b"APR\0\x02\x00" + struct.pack("<HIQIQQ", 0x400, 1, 64, 7, 128, 192)
    head = header + struct.pack("<I", zlib.crc32(header + bytes(20))) + bytes(20)
    entry = struct.pack("<H1sBBQQQQ", 1, b"w", 0, 2, 1, 2, 0, 8)
    body = b'{"a":1}'.ljust(64, b"\0") + entry.ljust(64, b"\0")
    body += struct.pack("<ff", 1, 2).ljust(64, b"\0")
    assert path.read_bytes() == head + body + struct.pack("<I", zlib.crc32(head + body))


def test_tensors_are_views_of_the_file(checkpoint: Path) -> None:
    """No copy: two reads share memory; a write through one stays in this process."""
    before, file = checkpoint.read_bytes(), AprFile(checkpoint)
    first, second = file.tensor("model.norm.weight"), file.tensor("model.norm.weight")
    assert first.data_ptr() == second.data_ptr()
    first[0] = 77
    file.close()
    assert second[0] == 77
    assert checkpoint.read_bytes() == before
    with pytest.raises(WeightsError, match="after the file was closed"):
        file.tensor("model.norm.weight")


def repaired(content: bytearray) -> bytes:
    """`content` with both checksums made to match, as an attacker would."""
    content[40:44] = struct.pack("<I", zlib.crc32(content[44:64], zlib.crc32(content[:40])))
    content[-4:] = struct.pack("<I", zlib.crc32(content[:-4]))
    return bytes(content)


def read_everything(path: Path) -> None:
    """What a command does with a file."""
    file = AprFile(path)
    for name in file.names():
        file.tensor(name)


def test_file_cut_anywhere_is_refused(checkpoint: Path) -> None:
    """At each section boundary, one byte to either side of it, and at every 97th byte."""
    content = checkpoint.read_bytes()
    header = AprFile(checkpoint).header
    marks = (0, 4, 64, 64 + header.metadata_size, header.index_offset, header.data_offset)
    cuts = {mark + by for mark in (*marks, len(content)) for by in (-1, 0, 1)}
    for cut in sorted((cuts | set(range(0, len(content), 97))) & set(range(len(content)))):
        checkpoint.write_bytes(content[:cut])
        with pytest.raises(WeightsError, match=str(checkpoint)):
            AprFile(checkpoint)


def test_any_flipped_bit_is_refused(checkpoint: Path) -> None:
    """F-CKPT-011: header, padding, data or checksum, one bit of every 101st byte."""
    content = checkpoint.read_bytes()
    for place in range(0, len(content), 101):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        checkpoint.write_bytes(damaged)
        with pytest.raises(WeightsError, match=str(checkpoint)):
            AprFile(checkpoint)


@settings(
    max_examples=600,
    deadline=2000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damage_with_repaired_checksums_never_crashes(checkpoint: Path, data: Any) -> None:
    """Bytes of header, metadata and index set at random: read whole, or refused by one error."""
    original = checkpoint.with_suffix(".original")
    if not original.exists():
        original.write_bytes(checkpoint.read_bytes())
    content = bytearray(original.read_bytes())
    end = AprFile(original).header.data_offset
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, end - 1))
        content[place] = data.draw(st.integers(0, 255))
    checkpoint.write_bytes(repaired(content))
    try:
        read_everything(checkpoint)
    except TrainerError as error:
        assert "\n" not in str(error)


HEADER_DAMAGE = [
    (0, b"APRN", "APR v1"),
    (0, b"GGUF", "magic is b'GGUF', but b'APR.x00' is needed"),
    (4, b"\x03", "version is 3.0, but only 2.0 is read"),
    (5, b"\x01", "version is 2.1, but only 2.0 is read"),
    (6, b"\x01\x04", "LZ4"),
    (6, b"\x02\x04", "Zstd"),
    (6, b"\x04\x04", "encryption"),
    (6, b"\x10\x04", "sharding"),
    (6, b"\x00\x08", "column-major"),
    (6, b"\x00\x14", "flags is 0x1400"),
    (8, b"\xff\xff\xff\xff", "tensor count is 4294967295, but the index has room for"),
    (12, struct.pack("<Q", 2**64 - 64), "metadata offset is 18446744073709551552, but it must be"),
    (20, struct.pack("<I", 2**32 - 1), "metadata size is 4294967295, but at most 16777216"),
    (20, struct.pack("<I", 16 << 20), "tensor index offset is .*, but the metadata ends at"),
    (24, struct.pack("<Q", 2**64 - 64), "data offset is .*, but the tensor index starts at"),
    (24, struct.pack("<Q", 64), "tensor index offset is 64, but the metadata ends at"),
    (32, struct.pack("<Q", 2**63), "file length without its footer is .*, but data starts at"),
    (44, b"\x01", "reserved bytes"),
]


@pytest.mark.parametrize(("place", "value", "said"), HEADER_DAMAGE)
def test_impossible_header_is_refused_by_field_and_values(
    checkpoint: Path, place: int, value: bytes, said: str
) -> None:
    """Each field of the header, with checksums that match."""
    content = bytearray(checkpoint.read_bytes())
    content[place : place + len(value)] = value
    checkpoint.write_bytes(repaired(content))
    with pytest.raises(WeightsError, match=said) as caught:
        AprFile(checkpoint)
    assert str(checkpoint) in str(caught.value)


def index_entry(name: bytes = b"w", **changes: int) -> bytes:
    """An index entry for float32 ``[2]`` at offset 0."""
    fields = {"code": 0, "size": 8, "offset": 0, "dimension": 2} | changes
    packed = struct.pack("<H", len(name)) + name + bytes([fields["code"], 1])
    return packed + struct.pack("<QQQ", fields["dimension"], fields["offset"], fields["size"])


def file_with(tmp_path: Path, *entries: bytes, metadata: bytes = b"{}") -> Path:
    """A file whose index is exactly `entries` and whose data section has 128 bytes."""
    path, index = tmp_path / "made.apr", b"".join(entries)
    header = apr_layout.Header(
        0x400,
        len(entries),
        64,
        len(metadata),
        64 + apr_layout.aligned(len(metadata)),
        64 + apr_layout.aligned(len(metadata)) + apr_layout.aligned(len(index)),
    )
    content = apr_layout.pack_header(header)
    content += metadata.ljust(apr_layout.aligned(len(metadata)), b"\0")
    content += index.ljust(apr_layout.aligned(len(index)), b"\0") + bytes(128)
    path.write_bytes(content + struct.pack("<I", zlib.crc32(content)))
    return path


INDEX_DAMAGE = [
    ([index_entry(b"")], "name length of tensor 0 of 1 is 0"),
    ([index_entry(b"w" * 257)], "name length of tensor 0 of 1 is 257, but 1 to 256"),
    ([index_entry(b"\xff")], "name of tensor 0 of 1 is .*, but it must be UTF-8"),
    ([b"\xff\xff" + index_entry(b"w" * 60)], "name length of tensor 0 of 1 is 65535"),
    ([index_entry(code=77)], "dtype of 'w' is 77"),
    ([b"\x01\0w\0\x09" + bytes(90)], "dimensions of 'w' is 9, but at most 8"),
    ([index_entry(dimension=0, size=0)], r"shape of 'w' is \[0\]"),
    ([index_entry(dimension=2**63)], r"shape of 'w' is \[9223372036854775808\]"),
    ([index_entry(dimension=2**62, size=0)], "size in bytes of 'w' is 0, but .* takes 1844674407"),
    ([index_entry(size=12)], r"size in bytes of 'w' is 12, but float32 \[2\] takes 8"),
    ([index_entry(offset=32)], "offset of w is 32"),
    ([index_entry(offset=128)], "end of w is 136, but the data section has 128"),
    ([index_entry(offset=2**64 - 64)], "end of w is 18446744073709551560"),
    ([index_entry(b"b"), index_entry(b"a", offset=64)], "'a' after 'b'"),
    ([index_entry(b"a"), index_entry(b"a", offset=64)], "'a' after 'a'"),
    ([index_entry(b"a"), index_entry(b"b")], "offset of b is 0, but a ends at 8"),
    ([index_entry(code=12, size=144)], "Q4_K .* takes whole blocks"),
]


@pytest.mark.parametrize(("entries", "said"), INDEX_DAMAGE)
def test_impossible_index_is_refused_by_field_and_values(
    tmp_path: Path, entries: list[bytes], said: str
) -> None:
    """Each field of an entry, with checksums that match."""
    with pytest.raises(WeightsError, match=said):
        AprFile(file_with(tmp_path, *entries))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (b"[1]", "metadata is a list"),
        (b"{", "metadata is no JSON"),
        (b'{"a":NaN}', "NaN is not a JSON number"),
        (b"\xff", "metadata is no JSON"),
        (b"[" * 100_000, "metadata is no JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "metadata is no JSON"),
    ],
)
def test_metadata_that_is_no_object_is_refused(tmp_path: Path, metadata: bytes, said: str) -> None:
    """Another kind of JSON, broken JSON, nesting without end, a number without end."""
    with pytest.raises(WeightsError, match=said):
        AprFile(file_with(tmp_path, index_entry(), metadata=metadata))


def test_of_a_duplicated_key_the_last_value_holds(tmp_path: Path) -> None:
    """As in the reference implementation."""
    assert AprFile(file_with(tmp_path, metadata=b'{"a":1,"a":2}')).metadata == {"a": 2}


@pytest.mark.parametrize(("code", "dtype"), [(2, "bfloat16"), (8, "q4"), (9, "q8")])
def test_dtype_codes_of_older_files_are_known(tmp_path: Path, code: int, dtype: str) -> None:
    """bfloat16 is read; a quantised tensor is listed, and refused by name when it is asked for."""
    size = {"bfloat16": 4, "q4": 18, "q8": 6}[dtype]
    file = AprFile(file_with(tmp_path, index_entry(code=code, size=size)))
    assert file.entries["w"].dtype == dtype
    if dtype == "bfloat16":
        assert torch.equal(file.tensor("w"), torch.zeros(2, dtype=torch.bfloat16))
        return
    with pytest.raises(WeightsError, match=f"w is quantised as {dtype}"):
        file.tensor("w")


def with_config(**changes: object) -> bytes:
    """Metadata of the tiny Llama, some of it changed."""
    return json.dumps(config_metadata(LLAMA) | changes).encode()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"num_layers": 10**9}, WeightsError, "model.layers.0.* is missing"),
        ({"num_layers": 10**30}, WeightsError, "num_layers has more than 18 digits"),
        ({"hidden_size": None}, WeightsError, "hidden_size is missing or null"),
        ({"rope_theta": 10**400}, WeightsError, "rope_theta has more than 18 digits"),
        ({"num_heads": "4"}, ArchitectureError, "num_heads must be a positive integer, not '4'"),
        ({"num_kv_heads": 3}, ArchitectureError, "num_kv_heads 3 does not divide"),
        ({"rope_type": 0}, ArchitectureError, "rope_type 0"),
        ({"head_dim": None, "num_heads": 5}, ArchitectureError, "head_dim is absent"),
    ],
)
def test_absurd_configuration_is_refused_before_anything_is_built(
    tmp_path: Path, changes: dict[str, object], error: type[TrainerError], said: str
) -> None:
    """A billion layers, numbers without end, null, text."""
    with pytest.raises(error, match=said):
        AprFile(file_with(tmp_path, index_entry(), metadata=with_config(**changes)))


@pytest.mark.parametrize("config", [LLAMA, QWEN2], ids=["llama", "qwen2"])
def test_fields_that_other_writers_leave_out_are_deduced(
    config: ModelConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    """Ties and biases from the tensors that are there, head_dim from the sizes."""
    own = {"attention_bias": None, "tie_word_embeddings": None, "head_dim": None}
    path = tmp_path / "model.apr"
    write_apr(path, config_metadata(config) | own, dict(make_model(config).named_parameters()))
    assert read_architecture(path) == config


def test_shapes_must_fit_the_configuration_on_write_and_on_read(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """F-CKPT-008: a tensor missing, unexpected or transposed, and moments of another shape."""
    good = tensors_of(make_model(LLAMA))
    norm, up = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"
    moment = "__training__.optim.model.norm.weight.exp_avg"
    faults = {
        f"{norm} is missing": {n: t for n, t in good.items() if norm not in n},
        "model.layers.9.x is no tensor": good | {"model.layers.9.x": torch.zeros(1)},
        rf"{up} is \[32, 48\], its configuration says \[48, 32\]": good | {up: good[up].T},
        rf"{moment} is \[31\]": good | {moment: torch.zeros(31)},
    }
    path = tmp_path / "model.apr"
    for said, tensors in faults.items():
        with pytest.raises(WeightsError, match=said):
            write_apr(path, config_metadata(LLAMA), tensors)
        write_apr(path, {}, tensors)
        file = AprFile(path)
        content = file_content(config_metadata(LLAMA), file)
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=said):
            AprFile(path)
        path.unlink()


def file_content(metadata: dict[str, Any], file: AprFile) -> bytes:
    """The bytes of `file` under other metadata, unchecked."""
    encoded = json.dumps(metadata).encode()
    old, start = file.header, 64 + apr_layout.aligned(len(encoded))
    content = file.path.read_bytes()
    header = replace(
        old,
        metadata_size=len(encoded),
        index_offset=start,
        data_offset=start + old.data_offset - old.index_offset,
    )
    body = apr_layout.pack_header(header) + encoded.ljust(start - 64, b"\0")
    body += content[old.index_offset : -4]
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name", ["model.norm.weight", "__training__.optim.model.norm.weight.exp_avg"]
)
def test_values_that_are_not_finite_are_neither_written_nor_read(
    checkpoint: Path, make_model: MakeModel, name: str, value: float
) -> None:
    """F-CKPT-007: NaN or Inf in weights or moments; what stood there before is untouched."""
    before, tensors = checkpoint.read_bytes(), tensors_of(make_model(LLAMA))
    tensors[name] = tensors[name].clone()
    tensors[name][3] = value
    with pytest.raises(WeightsError, match=f"F-CKPT-007: {name} holds 1 NaN or Inf among 32"):
        write_apr(checkpoint, config_metadata(LLAMA), tensors)
    assert checkpoint.read_bytes() == before
    file = AprFile(checkpoint)
    place = file.header.data_offset + file.entries[name].offset
    content = bytearray(before)
    content[place : place + 4] = struct.pack("<f", value)
    checkpoint.write_bytes(repaired(content))
    with pytest.raises(WeightsError, match=f"F-CKPT-007: {name} holds 1 NaN or Inf"):
        AprFile(checkpoint).tensor(name)


@pytest.mark.parametrize(
    ("metadata", "tensors", "said"),
    [
        ({"a": float("nan")}, {}, "cannot be written as JSON"),
        ({"a": object()}, {}, "cannot be written as JSON"),
        ({"a": "\ud800"}, {}, "cannot be written as JSON"),
        ({"a": "x" * (17 << 20)}, {}, "16777216 are allowed"),
        ({}, {"": torch.zeros(1)}, "takes 0 bytes"),
        ({}, {"é" * 129: torch.zeros(1)}, "takes 258 bytes"),
        ({}, {"x": torch.zeros(0)}, r"shape \[0\]"),
        ({}, {"x": torch.zeros([1] * 9)}, "at most 8 dimensions"),
        ({}, {"x": torch.zeros(1, dtype=torch.complex64)}, "x is torch.complex64"),
        ({}, {"x": torch.zeros(1, device="meta")}, "x is on meta"),
    ],
)
def test_what_no_reader_would_take_is_not_written(
    tmp_path: Path, metadata: dict[str, Any], tensors: dict[str, Tensor], said: str
) -> None:
    """Refused before a file exists."""
    with pytest.raises(WeightsError, match=said):
        write_apr(tmp_path / "x.apr", metadata, tensors)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_old_file_and_no_partial(
    checkpoint: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-CKPT-009: the system's error passes on."""
    before = checkpoint.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_apr(checkpoint, config_metadata(LLAMA), tensors_of(make_model(LLAMA)))
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_partial_file_of_a_killed_process_is_overwritten(
    checkpoint: Path, make_model: MakeModel
) -> None:
    """A longer one leaves no tail, and is gone afterwards."""
    before, partial = checkpoint.read_bytes(), partial_path(checkpoint)
    partial.write_bytes(before * 2)
    metadata = AprFile(checkpoint).metadata
    file = AprFile(checkpoint)
    write_apr(checkpoint, metadata, {name: file.tensor(name) for name in file.names()})
    assert checkpoint.read_bytes() == before
    assert not partial.exists()


def test_more_than_one_system_call_takes_arrives_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may take less than it was given, 2 GiB at most: the rest follows."""
    real = io.FileIO.write

    class Short(io.FileIO):
        def write(self, content: Any, /) -> int:
            return real(self, content[:7])

    monkeypatch.setattr(durable, "_Unbuffered", type("Slow", (durable._Unbuffered, Short), {}))
    content = bytes(range(256))
    with durable.durable_file(tmp_path / "x") as file:
        assert file.write(content) == 256
    assert (tmp_path / "x").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"APR", b"APR\0" + bytes(30), b"not a file of this kind"])
def test_short_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """Nothing is mapped or unpacked beyond the end."""
    path = tmp_path / "x.apr"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged or not an APR v2 file"):
        AprFile(path)


def test_missing_file_and_tensor_are_named(checkpoint: Path) -> None:
    """The path and the name."""
    with pytest.raises(WeightsError, match=r"absent\.apr: no such file"):
        AprFile(checkpoint.with_name("absent.apr"))
    with pytest.raises(WeightsError, match="no tensor 'x' among"):
        AprFile(checkpoint).tensor("x")


def test_legacy_and_damaged_files_are_refused_as_initial_weights(checkpoint: Path) -> None:
    """Through the calls that commands use."""
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(b"APRN" + content[4:])
    for read in (read_architecture, load_init_tensors):
        with pytest.raises(WeightsError, match="APR v1"):
            read(checkpoint)


def test_file_that_was_replaced_is_opened_anew(checkpoint: Path, make_model: MakeModel) -> None:
    """The kept file is the latest one at the path, not an older one."""
    old = apr_file.opened(checkpoint).tensor("model.norm.weight").clone()
    write_apr(checkpoint, config_metadata(LLAMA), tensors_of(make_model(LLAMA, seed=8)))
    assert not torch.equal(apr_file.opened(checkpoint).tensor("model.norm.weight"), old)


def test_config_metadata_gives_the_config_back(config: ModelConfig) -> None:
    """Field for field."""
    assert config_from_metadata(config_metadata(config)) == config
