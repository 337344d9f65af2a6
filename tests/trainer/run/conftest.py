"""A tiny model, tokenizer and prepared dataset, and the command that trains on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel

from trainer import cli
from trainer.config import ModelConfig
from trainer.model import init
from trainer.model.decoder import Decoder

CONFIG = ModelConfig(
    architecture="llama",
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=48,
    vocab_size=257,
    max_position_embeddings=32,
    rope_theta=100.0,
    rms_norm_eps=1e-5,
    attention_bias=False,
    tie_word_embeddings=True,
)
HUGGING_FACE = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 257,
    "max_position_embeddings": 32,
    "rope_theta": 100.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


def write_tokenizer(folder: Path, extra: int = 0) -> Path:
    """Byte-level BPE without merges: 257 ids and `extra` ones that nothing encodes to."""
    folder.mkdir()
    tokens = [*sorted(ByteLevel.alphabet()), "<|endoftext|>", *(f"extra{i}" for i in range(extra))]
    (folder / "encoder.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    return folder


def write_model(folder: Path) -> Path:
    """A Hugging Face folder with random weights for `CONFIG`."""
    folder.mkdir()
    model = Decoder(CONFIG)
    init.initialize(model, 3)
    (folder / "config.json").write_text(json.dumps(HUGGING_FACE))
    tensors = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def prepare(root: Path, tokenizer: Path) -> Path:
    """A dataset of eight short documents under `root`."""
    texts, out = root / "texts", root / "dataset"
    texts.mkdir(parents=True)
    for number in range(8):
        words = f"Fox {number} jumps over {number + 1} lazy dogs and {number * 7} hens. "
        (texts / f"{number}.txt").write_text(words * 5)
    (root / "heldout.txt").write_text("A quick brown fox jumps over the lazy dog. " * 3)
    options = ["--tokenizer", tokenizer, "--out", out, "--heldout", root / "heldout.txt"]
    assert cli.main(["prepare", str(texts), *map(str, options), "--workers", "1"]) == 0
    return out


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``model``, ``tokenizer`` and ``dataset``; not to be changed."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("inputs")
    write_model(root / "model")
    prepare(root, write_tokenizer(root / "tokenizer"))
    return root


@pytest.fixture
def command(inputs: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments of a run of twelve steps in three epochs into tmp_path/run.

    Keywords override options; None leaves one out, True makes it a flag.
    """

    def make(**changes: Any) -> list[str]:
        options = {
            "device": "cpu",
            "init": inputs / "model",
            "tokenizer": inputs / "tokenizer",
            "dataset": inputs / "dataset",
            "run_dir": tmp_path / "run",
            "num_steps": 12,
            "steps_per_epoch": 4,
            "batch_size": 2,
            "seq_length": 16,
            "warmup": 1,
            "lr": 0.01,
        } | changes
        words = ["pretrain"]
        for name, value in options.items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                words.append(flag)
            elif value is not None:
                words += [flag, str(value)]
        return words

    return make
