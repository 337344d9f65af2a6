"""Initial weights: both formats, their oddities, and everything that must be refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainer.config import ModelConfig
from trainer.errors import ArchitectureError, TrainerError, WeightsError
from trainer.model.decoder import Decoder
from trainer.weights.architecture import read_architecture
from trainer.weights.load import load_init_tensors
from trainer.weights.populate import populate

MakeModel = Callable[..., Decoder]
Write = Callable[..., Path]


@pytest.mark.parametrize("write_name", ["write_safetensors", "write_gguf"])
def test_file_gives_back_configuration_and_every_bit(
    config: ModelConfig, make_model: MakeModel, write_name: str, request: pytest.FixtureRequest
) -> None:
    """Write a model, read architecture and tensors, populate another: equal, bit for bit."""
    model = make_model(config)
    path: Path = request.getfixturevalue(write_name)(config, dict(model.named_parameters()))
    assert read_architecture(path) == config
    other = make_model(config, seed=99)
    populate(other, load_init_tensors(path))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


def test_bare_safetensors_file_takes_the_config_beside_it(
    llama: ModelConfig, make_model: MakeModel, write_safetensors: Write
) -> None:
    """The folder and the file in it say the same."""
    folder = write_safetensors(llama, dict(make_model(llama).named_parameters()))
    file = folder / "model.safetensors"
    assert read_architecture(file) == llama
    assert load_init_tensors(file).keys() == load_init_tensors(folder).keys()


def test_shards_are_read_through_their_index(
    llama: ModelConfig, make_model: MakeModel, write_safetensors: Write
) -> None:
    """Two shards and an index hold the model; a shard that is missing is named."""
    tensors = {n: p.detach().clone() for n, p in make_model(llama).named_parameters()}
    folder = write_safetensors(llama, tensors)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / shard)
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    read = load_init_tensors(folder)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in names)
    (folder / "b.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"b\.safetensors: no such file"):
        load_init_tensors(folder)


CONFIG_FIELDS = [
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "rope_theta",
    "rms_norm_eps",
    "tie_word_embeddings",
]


@pytest.mark.parametrize("field", CONFIG_FIELDS)
def test_absent_config_field_is_named_not_defaulted(
    llama: ModelConfig, write_safetensors: Write, field: str
) -> None:
    """Each field that the model needs must be in config.json."""
    folder = write_safetensors(llama, {"x": torch.zeros(1)}, drop=(field,))
    with pytest.raises(WeightsError, match=f"{field} is missing"):
        read_architecture(folder)


GGUF_KEYS = [
    "embedding_length",
    "block_count",
    "attention.head_count",
    "attention.head_count_kv",
    "feed_forward_length",
    "context_length",
    "rope.freq_base",
    "attention.layer_norm_rms_epsilon",
]


@pytest.mark.parametrize("key", GGUF_KEYS)
def test_absent_gguf_key_is_named_not_defaulted(
    llama: ModelConfig, make_model: MakeModel, write_gguf: Write, key: str
) -> None:
    """Each key that the model needs must be in the metadata."""
    path = write_gguf(llama, dict(make_model(llama).named_parameters()), drop=(key,))
    with pytest.raises(WeightsError, match=f"the metadata has no llama.{key}"):
        read_architecture(path)


def test_absent_head_dim_is_hidden_size_over_heads(
    llama: ModelConfig, make_model: MakeModel, write_safetensors: Write, write_gguf: Write
) -> None:
    """The one absence to which both formats give a meaning."""
    tensors = dict(make_model(llama).named_parameters())
    assert read_architecture(write_safetensors(llama, tensors, drop=("head_dim",))) == llama
    assert read_architecture(write_gguf(llama, tensors, drop=("attention.key_length",))) == llama


def test_llama_has_the_biases_that_it_stores(
    llama: ModelConfig, make_model: MakeModel, write_safetensors: Write
) -> None:
    """Without an attention_bias field, the tensors decide."""
    biased = replace(llama, attention_bias=True)
    folder = write_safetensors(biased, dict(make_model(biased).named_parameters()))
    assert read_architecture(folder).attention_bias


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "bert"}, "architecture 'bert'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "RoPE scaling 'yarn'"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"num_key_value_heads": 3}, "num_kv_heads 3 does not divide"),
        ({"hidden_size": "32"}, "hidden_size must be a positive integer, not '32'"),
        ({"rope_theta": "big"}, "rope_theta must be finite and positive, not 'big'"),
        ({"rope_theta": True}, "rope_theta must be finite and positive, not True"),
        ({"rope_theta": 10**400}, "rope_theta must be finite and positive"),
        ({"rms_norm_eps": True}, "rms_norm_eps must be finite and positive, not True"),
        ({"head_dim": 0}, "head_dim must be a positive integer, not 0"),
        ({"vocab_size": 2**31}, "vocab_size must be at most 2147483647"),
        ({"attention_bias": "many"}, "attention_bias must be true or false, not 'many'"),
        ({"mlp_bias": 0}, "mlp_bias 0"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder True"),
        ({"add_cross_attention": True}, "add_cross_attention True"),
        ({"architectures": ["BertModel"]}, r"architectures \['BertModel'\]"),
        (
            {"rope_parameters": {"rope_theta": 1e4}, "rope_scaling": {"type": "linear"}},
            "rope_scaling: RoPE scaling 'linear'",
        ),
    ],
)
def test_other_families_and_variants_are_refused(
    llama: ModelConfig, write_safetensors: Write, changes: dict[str, object], said: str
) -> None:
    """What this decoder would compute wrongly is an ArchitectureError that names it."""
    folder = write_safetensors(llama, {"x": torch.zeros(1)}, **changes)
    with pytest.raises(ArchitectureError, match=said):
        read_architecture(folder)


@pytest.mark.parametrize("stated", [False, "many", 1])
def test_qwen2_without_biases_is_refused(
    qwen2: ModelConfig, write_safetensors: Write, stated: object
) -> None:
    """The family has no flag for biases; a file that brings one must say what holds."""
    folder = write_safetensors(qwen2, {"x": torch.zeros(1)}, attention_bias=stated)
    with pytest.raises(ArchitectureError, match=f"attention_bias {stated!r}"):
        read_architecture(folder)


@pytest.mark.parametrize("value", [False, 0, "", []])
@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
def test_what_is_no_object_is_not_taken_for_an_absent_one(
    llama: ModelConfig, write_safetensors: Write, name: str, value: object
) -> None:
    """Only null is absent."""
    folder = write_safetensors(llama, {"x": torch.zeros(1)}, **{name: value})
    with pytest.raises(WeightsError, match=f"{name} must be an object"):
        read_architecture(folder)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("attention.causal", False, "attention.causal False"),
        ("rope.dimension_count", 4, "rope.dimension_count 4 is not supported, only 8"),
        ("rope.scaling.type", "yarn", "rope.scaling.type 'yarn'"),
        ("block_count", 2.5, "num_layers must be a positive integer, not 2.5"),
        ("attention.head_count", float("nan"), "num_heads must be a positive integer, not nan"),
        ("rope.freq_base", float("inf"), "rope_theta must be finite and positive, not inf"),
    ],
)
def test_gguf_variants_are_refused(
    llama: ModelConfig,
    make_model: MakeModel,
    write_gguf: Write,
    key: str,
    value: object,
    said: str,
) -> None:
    """Sentence encoders, partial rotation, scaled positions, and counts that are none."""
    path = write_gguf(llama, dict(make_model(llama).named_parameters()), extra={key: value})
    with pytest.raises(ArchitectureError, match=said):
        read_architecture(path)


def test_gguf_of_another_family_is_refused(
    llama: ModelConfig, make_model: MakeModel, write_gguf: Write
) -> None:
    """By architecture and by tensors alike."""
    path = write_gguf(
        replace(llama, architecture="bert"), dict(make_model(llama).named_parameters())
    )
    for read in (read_architecture, load_init_tensors):
        with pytest.raises(ArchitectureError, match="architecture 'bert'"):
            read(path)


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.05, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("write_name", ["write_safetensors", "write_gguf"])
def test_truncated_file_is_refused(
    llama: ModelConfig,
    make_model: MakeModel,
    write_name: str,
    fraction: float,
    request: pytest.FixtureRequest,
) -> None:
    """Cut in the header, the metadata or the data: one WeightsError that names the file."""
    write: Write = request.getfixturevalue(write_name)
    path = write(llama, dict(make_model(llama).named_parameters()))
    file = path / "model.safetensors" if path.is_dir() else path
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(WeightsError, match=str(file)):
        load_init_tensors(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (b"not a model at all", "neither GGUF magic nor"),
        (b"GGUF" + b"\xff" * 60, "not a whole GGUF file"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 16 + b"\0" * 64, "not a whole GGUF file"),
    ],
)
def test_damaged_file_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    """Missing, empty, foreign or absurd: one WeightsError that says which."""
    path = tmp_path / "weights.gguf"
    if content is not None:
        path.write_bytes(content)
    for read in (read_architecture, load_init_tensors):
        with pytest.raises(WeightsError, match=said):
            read(path)


def test_array_longer_than_the_file_is_refused_at_once(tmp_path: Path) -> None:
    """A metadata array that claims a million elements is measured against the file first."""
    key, array, uint32 = b"k", 9, 4
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    content += struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", array, uint32, 1_000_000)
    path = tmp_path / "weights.gguf"
    path.write_bytes(content + b"\0" * 64)
    with pytest.raises(WeightsError, match=f"is needed, the file has {len(content) + 64}"):
        read_architecture(path)


def test_integers_are_not_weights(llama: ModelConfig, write_safetensors: Write) -> None:
    """A tensor that is not of a float dtype is refused by name."""
    folder = write_safetensors(llama, {"x": torch.zeros(3, dtype=torch.int32)})
    with pytest.raises(WeightsError, match=r"x is torch\.int32"):
        load_init_tensors(folder)


def spoil(tensors: dict[str, torch.Tensor], fault: str) -> None:
    """Plant one fault in a set of weights."""
    name = "model.layers.1.mlp.up_proj.weight"
    if fault == "missing":
        del tensors[name]
    elif fault == "unexpected":
        tensors["model.layers.2.mlp.up_proj.weight"] = tensors[name]
    elif fault == "wrong shape":
        tensors[name] = tensors[name].T.contiguous()
    else:
        tensors[name][0, 0] = torch.nan


@pytest.mark.parametrize("fault", ["missing", "unexpected", "wrong shape", "NaN or Inf in"])
def test_weights_that_do_not_fit_leave_the_model_as_it_was(
    qwen2: ModelConfig, make_model: MakeModel, fault: str
) -> None:
    """One bad tensor of many: the error names it, and nothing was copied."""
    tensors = {n: p.detach().clone() for n, p in make_model(qwen2, seed=1).named_parameters()}
    spoil(tensors, fault)
    model = make_model(qwen2, seed=2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(
        WeightsError, match=rf"INIT-007.*{fault} 1: model\.layers\.\d\.mlp\.up_proj"
    ):
        populate(model, tensors)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_copy_of_a_tied_head_must_be_a_copy(llama: ModelConfig, make_model: MakeModel) -> None:
    """An lm_head.weight beside a tied embedding passes if equal, and is refused if not."""
    model = make_model(llama)
    tensors = {name: p.detach().clone() for name, p in model.named_parameters()}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    populate(model, tensors)
    tensors["lm_head.weight"][0, 0] += 1
    with pytest.raises(WeightsError, match=r"INIT-007.*ties its head"):
        populate(model, tensors)


def test_every_refusal_is_one_line(tmp_path: Path) -> None:
    """Messages are one line, so that the command line prints one."""
    with pytest.raises(TrainerError) as caught:
        read_architecture(tmp_path)
    assert "\n" not in str(caught.value)
