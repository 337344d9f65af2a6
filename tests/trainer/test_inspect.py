"""`aprtrain inspect`: one description of every format, and damage never described."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import LLAMA
from trainer.commands import inspect as command
from trainer.errors import WeightsError
from trainer.model.decoder import Decoder
from trainer.weights.apr_metadata import config_metadata
from trainer.weights.apr_writer import write_apr

MakeModel = Callable[..., Decoder]
STORED = 64 * 32 + 2 * (32 * (32 + 2 * 16) + 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
"""Parameters of the tiny tied Llama, counted by hand."""


def run(*arguments: object) -> int:
    """The command with these arguments."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["inspect", *map(str, arguments)])
    return int(options.run(options))


@pytest.fixture
def files(
    tmp_path: Path,
    make_model: MakeModel,
    write_gguf: Callable[..., Path],
    write_safetensors: Callable[..., Path],
) -> dict[str, Path]:
    """The tiny Llama in each format; the APR file is a checkpoint."""
    tensors = {name: p.detach() for name, p in make_model(LLAMA).named_parameters()}
    path = tmp_path / "checkpoint.apr"
    moments = {"__training__.optim.model.norm.weight.exp_avg": torch.rand(32)}
    position = {"step": 7, "rng": "ab" * 500, "history": [1.5]}
    write_apr(path, config_metadata(LLAMA) | {"training": position}, tensors | moments)
    folder = write_safetensors(LLAMA, tensors)
    return {
        "apr": path,
        "gguf": write_gguf(LLAMA, tensors),
        "folder": folder,
        "safetensors": folder / "model.safetensors",
    }


def described(path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The JSON that the command prints."""
    assert run(path, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["apr", "gguf", "folder", "safetensors"])
def test_every_format_is_described_alike(
    files: dict[str, Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Architecture, counts with and without the tied head, and the dtype table."""
    found = described(files[kind], capsys)
    assert found["format"] == ("safetensors" if kind == "folder" else kind)
    assert found["architecture"]["rms_norm_eps"] == 1e-5
    assert found["parameters"] == {
        "nominal": STORED + 64 * 32,
        "stored": STORED,
        "in_file": STORED,
    }
    assert found["dtypes"] == {"float32": {"tensors": 20, "values": STORED, "bytes": 4 * STORED}}


def test_checkpoint_shows_its_position_and_checksums(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Step and training state, apart from the model's tensors; long texts only by their length."""
    found = described(files["apr"], capsys)
    assert found["training"] == {"step": 7, "rng": "(1000 characters)", "history": [1.5]}
    assert found["training_state"] == {"float32": {"tensors": 1, "values": 32, "bytes": 128}}
    stored = int.from_bytes(files["apr"].read_bytes()[-4:], "little")
    assert found["checksums"]["file_crc32"] == f"verified {stored:08x}"


@pytest.mark.parametrize("kind", ["apr", "gguf", "folder", "safetensors"])
def test_text_names_what_the_json_has(
    files: dict[str, Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page for people."""
    assert run(files[kind]) == 0
    page = capsys.readouterr().out
    assert f"stored {STORED:,}" in page and "hidden_size: 32" in page
    assert ("step: 7" in page) == (kind == "apr")


def test_model_of_another_family_is_described_without_architecture(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be trained can be looked at, and the reason is said."""
    (files["folder"] / "config.json").write_text(json.dumps({"model_type": "bert"}))
    found = described(files["folder"], capsys)
    assert found["architecture"] is None
    assert "architecture 'bert'" in found["architecture_absent_reason"]
    assert found["parameters"] == {"in_file": STORED}


@pytest.mark.parametrize("kind", ["apr", "gguf", "safetensors"])
def test_truncated_file_is_refused(files: dict[str, Path], kind: str) -> None:
    """Every format, cut in the middle."""
    content = files[kind].read_bytes()
    files[kind].write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=str(files[kind])):
        run(files[kind])


def test_what_is_no_weight_file_is_refused(tmp_path: Path) -> None:
    """Another file, an absent file."""
    (tmp_path / "x.txt").write_text("not a model")
    for name, said in {"x.txt": "neither GGUF magic", "absent": "no such file"}.items():
        with pytest.raises(WeightsError, match=said):
            run(tmp_path / name)
