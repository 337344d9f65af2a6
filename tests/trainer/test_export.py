"""Export: every format gives back the model, and transformers computes the same with it."""

from __future__ import annotations

import argparse
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

from tests.trainer.conftest import LLAMA
from trainer.commands import export as command
from trainer.config import ModelConfig
from trainer.errors import ArchitectureError, ConfigurationError, TokenizerError, WeightsError
from trainer.model.decoder import Decoder
from trainer.tokenizer import load_tokenizer
from trainer.weights import export as exporting
from trainer.weights.apr_metadata import config_metadata
from trainer.weights.apr_writer import write_apr
from trainer.weights.architecture import read_architecture
from trainer.weights.gguf_file import GgufFile
from trainer.weights.load import load_init_tensors
from trainer.weights.safetensors_header import read_header

MakeModel = Callable[..., Decoder]
FORMATS = ["apr", "gguf", "safetensors"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def run(*arguments: object) -> int:
    """The command with these arguments."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["export", *map(str, arguments)])
    return int(options.run(options))


def target_of(folder: Path, format_: str) -> Path:
    """A path whose name asks for a format."""
    return folder / {"apr": "out.apr", "gguf": "out.gguf", "safetensors": "out"}[format_]


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model with some training state."""

    def write(model: Decoder) -> Path:
        path = tmp_path / "checkpoint.apr"
        tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
        moments = {"__training__.optim.model.norm.weight.exp_avg": torch.rand(32)}
        write_apr(
            path, config_metadata(model.config) | {"training": {"step": 1}}, tensors | moments
        )
        return path

    return write


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """A tokenizer of 64 ids, split as smollm splits."""
    tokens = ["<|endoftext|>", *sorted(ByteLevel.alphabet())[:58], "a", "b", "Ġ", "ab", "Ġa"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    engine = Tokenizer(BPE(vocabulary, [("a", "b"), ("Ġ", "a")]))
    digits = Digits(individual_digits=True)
    engine.pre_tokenizer = Sequence([digits, ByteLevel(add_prefix_space=False)])
    engine.decoder = ByteLevelDecoder()
    engine.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    path = tmp_path / "tokenizer.json"
    engine.save(str(path))
    return path


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_values_come_back_rounded_once(
    config: ModelConfig,
    make_model: MakeModel,
    write_checkpoint: Callable[..., Path],
    tmp_path: Path,
    format_: str,
    dtype: str,
) -> None:
    """Exact in float32; else rounded to nearest even, except the vectors of a GGUF. No training
    state, and a tied embedding once."""
    model, target = make_model(config), target_of(tmp_path, format_)
    assert run(write_checkpoint(model), target, "--dtype", dtype) == 0
    assert read_architecture(target) == config
    loaded = load_init_tensors(target)
    parameters = dict(model.named_parameters())
    assert loaded.keys() == parameters.keys()
    for name, parameter in parameters.items():
        kept = format_ == "gguf" and parameter.ndim == 1
        expected = parameter if kept else parameter.to(DTYPES[dtype]).float()
        assert torch.equal(loaded[name], expected), name
    assert not [path for path in tmp_path.rglob("*.partial")]


@pytest.mark.parametrize("through", FORMATS)
def test_a_way_through_any_format_is_exact(
    config: ModelConfig,
    make_model: MakeModel,
    write_checkpoint: Callable[..., Path],
    tmp_path: Path,
    through: str,
) -> None:
    """checkpoint -> format -> APR gives the same bytes as checkpoint -> APR."""
    source, middle = write_checkpoint(make_model(config)), target_of(tmp_path, through)
    direct, around = tmp_path / "direct.apr", tmp_path / "around.apr"
    run(source, middle, "--format", through)
    run(source, direct)
    if middle.name == "out.apr":
        middle = middle.rename(tmp_path / "middle.apr")
    run(middle, around)
    assert direct.read_bytes() == around.read_bytes()


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_transformers_computes_the_same_logits(
    name: str,
    make_model: MakeModel,
    write_checkpoint: Callable[..., Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """AutoModelForCausalLM on the exported folder, random tokens, float32 on both sides.

    The bound is 2^-20 of the logits' norm: eight float32 roundings, where any wrong weight,
    eps, theta or tie gives 1e-4 and more.
    """
    transformers = pytest.importorskip("transformers")
    model = make_model(request.getfixturevalue(name))
    run(write_checkpoint(model), tmp_path / "out")
    other, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tokens = torch.randint(64, (1, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = model.logits(tokens), other(tokens).logits
    assert (ours - theirs).norm() <= 2**-20 * theirs.norm()


def test_gguf_holds_q_and_k_as_llama_cpp_rotates_them(
    llama: ModelConfig, make_model: MakeModel, write_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    """Byte for byte the tensors of a file whose rows were interleaved one by one."""
    tensors = {name: p.detach() for name, p in make_model(llama).named_parameters()}
    spelled_out = GgufFile(write_gguf(llama, tensors))
    stored = {name: tensor.data.tobytes() for name, tensor in spelled_out.tensors.items()}
    target = tmp_path / "out.gguf"
    model = exporting.Model(llama, tensors, None)
    exporting.export(model, target, "gguf", "float32", force=False)
    exported = GgufFile(target)
    assert {name: tensor.data.tobytes() for name, tensor in exported.tensors.items()} == stored


@pytest.mark.parametrize("format_", FORMATS)
def test_the_tokenizer_travels_with_the_model(
    llama: ModelConfig,
    make_model: MakeModel,
    write_checkpoint: Callable[..., Path],
    tokenizer_file: Path,
    tmp_path: Path,
    format_: str,
) -> None:
    """Given once with --tokenizer, it is read from what was exported, with the same ids."""
    target = target_of(tmp_path, format_)
    run(write_checkpoint(make_model(llama)), target, "--tokenizer", tokenizer_file)
    expected, found = load_tokenizer(tokenizer_file), load_tokenizer(target)
    text = "!ab AB 12 ab#"
    assert found.encode(text) == expected.encode(text)
    assert (found.vocab_size, found.end_of_text) == (expected.vocab_size, 0)
    again = tmp_path / "again.apr"
    run(target, again)
    assert load_tokenizer(again).encode(text) == expected.encode(text)
    alone = tmp_path / "alone.apr"
    run(target, alone, "--no-tokenizer")
    with pytest.raises(TokenizerError, match="no tokenizer is embedded"):
        load_tokenizer(alone)


@pytest.mark.parametrize("format_", FORMATS)
def test_nothing_is_overwritten_without_force(
    llama: ModelConfig,
    make_model: MakeModel,
    write_checkpoint: Callable[..., Path],
    tmp_path: Path,
    format_: str,
) -> None:
    """The refusal names the path; with --force the new model is there, and only it."""
    source, target = write_checkpoint(make_model(llama)), target_of(tmp_path, format_)
    run(source, target)
    before = load_init_tensors(target)["model.norm.weight"].clone()
    source = write_checkpoint(make_model(llama, seed=9))
    with pytest.raises(ConfigurationError, match=f"{target}: exists"):
        run(source, target)
    assert torch.equal(load_init_tensors(target)["model.norm.weight"], before)
    assert run(source, target, "--force") == 0
    assert not torch.equal(load_init_tensors(target)["model.norm.weight"], before)


def test_force_leaves_other_files_of_a_folder_alone(
    llama: ModelConfig, make_model: MakeModel, write_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Shards of the model that was there no longer count; a README stays."""
    source, folder = write_checkpoint(make_model(llama)), tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    run(source, folder, "--force")
    assert load_init_tensors(folder).keys() == load_init_tensors(source).keys()
    assert (folder / "README.md").read_text() == "mine"


@pytest.mark.parametrize("format_", FORMATS)
def test_a_failed_export_leaves_nothing(
    llama: ModelConfig,
    make_model: MakeModel,
    write_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format_: str,
) -> None:
    """The disk is full at the last moment: no target, no partial file."""
    source, target = write_checkpoint(make_model(llama)), target_of(tmp_path, format_)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.apr"]


def test_places_that_make_no_sense_are_refused(
    llama: ModelConfig, make_model: MakeModel, write_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Over itself, into a folder that is not there, to one bare safetensors file."""
    source = write_checkpoint(make_model(llama))
    before = source.read_bytes()
    for target in (source, tmp_path):
        with pytest.raises(ConfigurationError, match="is, or holds, what is exported"):
            run(source, target, "--force")
    with pytest.raises(ConfigurationError, match="no such folder"):
        run(source, tmp_path / "absent" / "out.apr")
    with pytest.raises(ConfigurationError, match="a model in safetensors is a folder"):
        run(source, tmp_path / "out.safetensors")
    with pytest.raises(ConfigurationError, match="is a file; safetensors are exported to a folder"):
        (tmp_path / "file").write_text("")
        run(source, tmp_path / "file", "--format", "safetensors", "--force")
    assert source.read_bytes() == before


def test_values_beyond_float16_are_refused(
    llama: ModelConfig, make_model: MakeModel, write_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """70000 is Inf in float16; the tensor is named and nothing is written."""
    model = make_model(llama)
    with torch.no_grad():
        model.model.norm.weight[0] = 70000.0
    source = write_checkpoint(model)
    with pytest.raises(WeightsError, match=r"model\.norm\.weight holds 1 NaN or Inf"):
        run(source, tmp_path / "out.apr", "--dtype", "float16")
    assert not (tmp_path / "out.apr").exists()
    assert run(source, tmp_path / "out.apr", "--dtype", "bfloat16") == 0


def test_incomplete_model_is_not_exported(
    llama: ModelConfig,
    make_model: MakeModel,
    write_safetensors: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """A folder that lacks a tensor: the tensor is named."""
    tensors = dict(make_model(llama).named_parameters())
    del tensors["model.norm.weight"]
    with pytest.raises(WeightsError, match=r"model\.norm\.weight is missing"):
        run(write_safetensors(llama, tensors), tmp_path / "out.apr")


def test_tied_head_is_written_once_or_refused(
    llama: ModelConfig,
    make_model: MakeModel,
    write_safetensors: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """A copy of a tied head is dropped; one that differs has no place in the file."""
    tensors = {name: p.detach().clone() for name, p in make_model(llama).named_parameters()}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    folder = write_safetensors(llama, tensors)
    run(folder, tmp_path / "out.apr")
    assert "lm_head.weight" not in load_init_tensors(tmp_path / "out.apr")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lm_head\.weight differs"):
        run(folder, tmp_path / "other.apr")


def test_architectures_that_transformers_would_misread_are_refused(
    make_model: MakeModel, write_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """A Llama with q, k and v biases only; GGUF and APR can hold it."""
    source = write_checkpoint(make_model(replace(LLAMA, attention_bias=True)))
    with pytest.raises(ArchitectureError, match="attention_bias True"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run(source, tmp_path / "out.gguf") == 0


def test_unnamed_splitting_cannot_go_to_gguf(
    llama: ModelConfig,
    make_model: MakeModel,
    write_checkpoint: Callable[..., Path],
    tokenizer_file: Path,
    tmp_path: Path,
) -> None:
    """llama.cpp would split text its own way; the way out is named, and works."""
    description = json.loads(tokenizer_file.read_text())
    description["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = False
    tokenizer_file.write_text(json.dumps(description))
    embedded = tmp_path / "embedded.apr"
    run(write_checkpoint(make_model(llama)), embedded, "--tokenizer", tokenizer_file)
    with pytest.raises(TokenizerError, match="--no-tokenizer"):
        run(embedded, tmp_path / "out.gguf")
    assert run(embedded, tmp_path / "out.gguf", "--no-tokenizer") == 0


def safetensors_bytes(header: object, data: int) -> bytes:
    """A safetensors file with this header and as many zero bytes."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + bytes(data)


def info(
    dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)
) -> dict[str, object]:
    """A header entry."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\1\2\3", "file length is 3"),
        (struct.pack("<Q", 2**63) + b"{}", "header size is 9223372036854775808, but at most 2"),
        (safetensors_bytes(b"{", 0), "header is no JSON"),
        (safetensors_bytes(b"[]", 0), "header is a list"),
        (safetensors_bytes(b'{"a":1,"a":2}', 0), "a name is given twice"),
        (safetensors_bytes(b"[" * 99_999, 0), "header is no JSON"),
        (safetensors_bytes({"w": 3}, 8), "dtype of w is None"),
        (safetensors_bytes({"w": info(dtype="F31")}, 8), "dtype of w is 'F31'"),
        (safetensors_bytes({"w": info(shape=[-2])}, 8), r"shape of w is \[-2\]"),
        (safetensors_bytes({"w": info(offsets=[0])}, 8), r"data_offsets of w is \[0\]"),
        (safetensors_bytes({"w": info(shape=[2**62])}, 8), "size in bytes of w is 8, but F32"),
        (safetensors_bytes({"w": info()}, 7), "end of the last tensor is 8, but the file has 7"),
        (safetensors_bytes({"w": info()}, 9), "end of the last tensor is 8, but the file has 9"),
        (safetensors_bytes({"a": info(), "w": info()}, 8), "start of w is 0, but .* ends at 8"),
        (safetensors_bytes({"w": info(offsets=[4, 12])}, 12), "start of w is 4"),
    ],
)
def test_impossible_safetensors_header_is_refused_by_field_and_values(
    tmp_path: Path, content: bytes, said: str
) -> None:
    """F-CKPT-012, before the library reads the file."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_safetensors_are_read_without_a_copy(
    llama: ModelConfig, make_model: MakeModel, write_safetensors: Callable[..., Path]
) -> None:
    """The tensors of a file lie in memory as they lie in the file."""
    folder = write_safetensors(llama, dict(make_model(llama).named_parameters()))
    places = read_header(folder / "model.safetensors")
    loaded = load_init_tensors(folder)
    starts = {loaded[name].data_ptr() - info.start for name, info in places.items()}
    assert len(starts) == 1


def test_tokenizer_without_merges_comes_back_from_gguf(
    llama: ModelConfig,
    make_model: Callable[..., Decoder],
    write_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Byte-level BPE of single bytes: GGUF has no empty list, and none means no merges."""
    tokens = [*sorted(ByteLevel.alphabet())[:63], "<|endoftext|>"]
    engine = Tokenizer(BPE({token: index for index, token in enumerate(tokens)}, []))
    engine.pre_tokenizer = ByteLevel(add_prefix_space=False)
    engine.decoder = ByteLevelDecoder()
    engine.save(str(tmp_path / "bytes.json"))
    target = tmp_path / "out.gguf"
    checkpoint = write_checkpoint(make_model(llama))
    assert run(checkpoint, target, "--tokenizer", tmp_path / "bytes.json") == 0
    assert load_tokenizer(target).encode("AB12") == [tokens.index(letter) for letter in "AB12"]


def test_gguf_text_that_is_not_utf8_is_damage(
    llama: ModelConfig,
    make_model: Callable[..., Decoder],
    write_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """One bit of the architecture's name flipped: a WeightsError that names the field."""
    target = tmp_path / "out.gguf"
    assert run(write_checkpoint(make_model(llama)), target) == 0
    length = (5).to_bytes(8, "little")  # before the value, and not before the keys it begins
    content = target.read_bytes().replace(length + b"llama", length + b"\xeclama")
    target.write_bytes(content)
    with pytest.raises(WeightsError, match=r"general\.architecture is damaged"):
        read_architecture(target)
