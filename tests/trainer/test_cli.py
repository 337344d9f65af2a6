"""The command line: exit codes, one-line errors, and nothing left behind by a refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel

from trainer import cli
from trainer.config import ModelConfig
from trainer.model.decoder import Decoder

MakeModel = Callable[..., Decoder]
Write = Callable[..., Path]


@pytest.fixture
def arguments(
    llama: ModelConfig, make_model: MakeModel, write_safetensors: Write, tmp_path: Path
) -> list[str]:
    """A command that trains a tiny model for three steps on its own weights."""
    config = replace(llama, vocab_size=256)
    weights = write_safetensors(config, dict(make_model(config).named_parameters()))
    vocabulary = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    (tmp_path / "encoder.json").write_text(json.dumps(vocabulary))
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\n")
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 4)
    options = {
        "--device": "cpu",
        "--init": weights,
        "--tokenizer": tmp_path,
        "--dataset": tmp_path / "text.txt",
        "--run-dir": tmp_path / "run",
        "--num-steps": 3,
        "--batch-size": 4,
        "--seq-length": 16,
        "--warmup": 1,
        "--lr": 0.01,
    }
    return ["pretrain", *(str(word) for option in options.items() for word in option)]


def test_pretrain_trains_and_logs(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 0, three lines, a learning rate of 0 and then the peak; the used-up data is noticed."""
    assert cli.main(arguments) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/train.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == [0.0, 0.01, pytest.approx(0.005)]
    assert lines[2]["train_loss"] < lines[0]["train_loss"]
    assert capsys.readouterr().err.count("the dataset is used up") == 0


def test_used_up_dataset_is_noticed_once(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten windows in batches of four for nine steps: three epochs, one notice."""
    arguments[arguments.index("--num-steps") + 1] = "9"
    assert cli.main(arguments) == 0
    assert capsys.readouterr().err.count("the dataset is used up") == 1


@pytest.mark.parametrize(
    ("option", "value", "code", "status"),
    [
        ("--device", "cuda:07", 2, "USAGE"),
        ("--num-steps", "0", 2, "USAGE"),
        ("--lr", "nan", 2, "USAGE"),
        ("--seq-length", "33", 3, "CONFIGURATION"),
        ("--warmup", "4", 3, "CONFIGURATION"),
        ("--dataset", "absent.txt", 3, "CONFIGURATION"),
        ("--init", "absent", 5, "WEIGHTS"),
        ("--tokenizer", "absent", 6, "TOKENIZER"),
    ],
)
def test_refusal_is_one_line_and_leaves_nothing(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    code: int,
    status: str,
) -> None:
    """The exit code and the status say which kind it is, and there is no run directory."""
    arguments[arguments.index(option) + 1] = value
    assert cli.main(arguments) == code
    error = capsys.readouterr().err
    assert error.startswith(f"aprtrain: {status}: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_tokenizer_larger_than_the_model_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """257 ids do not fit in 256 rows: exit 6, before anything is built or made."""
    vocabulary = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps({**vocabulary, "extra": 256}))
    assert cli.main(arguments) == 6
    assert "the tokenizer has 257 ids" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_earlier_run_is_not_overwritten(arguments: list[str], tmp_path: Path) -> None:
    """A second run into the same directory is refused, and the log stays."""
    assert cli.main(arguments) == 0
    before = (tmp_path / "run/train.jsonl").read_bytes()
    assert cli.main(arguments) == 3
    assert (tmp_path / "run/train.jsonl").read_bytes() == before


def test_unwritable_run_directory_is_one_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where the directory should be is a CONFIGURATION error, not a traceback."""
    (tmp_path / "file").write_text("")
    arguments[arguments.index("--run-dir") + 1] = str(tmp_path / "file" / "run")
    assert cli.main(arguments) == 3
    assert capsys.readouterr().err.startswith("aprtrain: CONFIGURATION: ")


def test_absent_gpu_exits_14_at_once_without_torch(arguments: list[str], tmp_path: Path) -> None:
    """--device cuda without a GPU: exit 14 within two seconds, and no run directory."""
    arguments[arguments.index("--device") + 1] = "cuda"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert time.monotonic() - started < 2
    assert done.returncode == 14
    assert done.stderr.startswith("aprtrain: DEVICE_UNAVAILABLE: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("cuda", "names", "state"),
    [
        (None, [], "TORCH_WITHOUT_CUDA"),
        ("13.0", [], "CUDA_BUILD_NO_GPU"),
        ("13.0", ["H100"], "GPU_VISIBLE"),
    ],
)
def test_device_report_tells_three_situations_apart(
    cuda: str | None,
    names: list[str],
    state: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """JSON with the state, the CUDA version and the names of the devices."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(name=names[index], major=9, minor=0, total_memory=80 << 30),
    )
    assert cli.main(["devices"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["state"], report["torch_cuda"]) == (state, cuda)
    assert [entry["name"] for entry in report["devices"]] == names
