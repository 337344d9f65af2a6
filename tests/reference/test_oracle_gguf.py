"""The oracle's GGUF reader, against files that these tests write by llama.cpp's convention."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from falsifiers.reference.errors import OracleInputError
from falsifiers.reference.gguf_weights import load

TENSORS = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 8)


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp's converter stores q and k of `llama`: the two halves interleaved."""
    grouped = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return grouped.swapaxes(1, 2).reshape(rows.shape)


def write(path: Path, judge, *, architecture: str | None = None, leave_out: str = "") -> None:
    config, architecture = judge.config, architecture or judge.config["architecture"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config["num_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_heads"])
    writer.add_head_count_kv(config["num_kv_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    if leave_out != "eps":
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    heads = {"q_proj": config["num_heads"], "k_proj": config["num_kv_heads"]}
    for name, value in judge.parameters.items():
        array = value.to(torch.float32).numpy()
        projection = name.split(".")[-2]
        if architecture == "llama" and projection in heads:
            array = permuted(array, heads[projection])
        stored = TENSORS.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored != leave_out:
            writer.add_tensor(stored, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_configuration_and_parameters_come_back_as_written(judge, tmp_path):
    """Every field and every element, q and k of Llama unpermuted, Qwen2 as it stands."""
    write(tmp_path / "model.gguf", judge)
    config, parameters = load(tmp_path / "model.gguf")
    assert config == judge.config
    assert parameters.keys() == judge.parameters.keys()
    for name, value in judge.parameters.items():
        assert parameters[name].dtype == torch.float32
        assert torch.equal(parameters[name], value.to(torch.float32)), name


def test_quantized_tensors_are_dequantized(judge, tmp_path):
    """Q8_0 keeps 8 bits of a block's range: within half a step of its largest element."""
    weight = torch.linspace(-1, 1, judge.config["vocab_size"] * 32).reshape(-1, 32).numpy()
    quantized = gguf.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    for add, value in (
        (writer.add_block_count, 0),
        (writer.add_context_length, 8),
        (writer.add_embedding_length, 32),
        (writer.add_feed_forward_length, 8),
        (writer.add_head_count, 1),
        (writer.add_head_count_kv, 1),
        (writer.add_rope_freq_base, 1e6),
        (writer.add_layer_norm_rms_eps, 1e-6),
    ):
        add(value)
    writer.add_tensor("token_embd.weight", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    config, parameters = load(path)
    assert (config["rms_norm_eps"], config["rope_theta"], config["head_dim"]) == (1e-6, 1e6, 32)
    error = np.abs(parameters["model.embed_tokens.weight"].numpy() - weight).max()
    # Half a step of 1/127, and the step itself is stored as float16 (2^-11 relative).
    assert 0 < error <= 0.5 / 127 + 2**-11


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"architecture": "bert"}, "'bert'"),
        ({"leave_out": "eps"}, "layer_norm_rms_epsilon"),
        ({"leave_out": "blk.1.ffn_up.weight"}, "model.layers.1.mlp.up_proj.weight"),
        ({"leave_out": "token_embd.weight"}, "token_embd.weight"),
    ],
)
def test_a_file_that_does_not_hold_the_model_is_refused(judge, tmp_path, fault, message):
    """Another family, a missing field, a missing tensor: each by name."""
    write(tmp_path / "model.gguf", judge, **fault)
    with pytest.raises(OracleInputError, match=message):
        load(tmp_path / "model.gguf")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(64)])
def test_a_file_that_is_not_gguf_is_refused(tmp_path, content):
    """Empty, or of another format."""
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(OracleInputError, match=r"model\.gguf"):
        load(tmp_path / "model.gguf")
