"""The command line: exit codes, one-line errors, and nothing left behind by a refusal."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.trainer.run.conftest import prepare, write_tokenizer
from trainer import cli
from trainer.corpus.manifest import Manifest
from trainer.run import files

Command = Callable[..., list[str]]


def refused(capsys: pytest.CaptureFixture[str], status: str) -> str:
    """The one line of stderr, which must name `status`."""
    error = capsys.readouterr().err
    assert error.startswith(f"aprtrain: {status}: "), error
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("changes", "code", "status"),
    [
        ({"device": "cuda:07"}, 2, "USAGE"),
        ({"num_steps": 0}, 2, "USAGE"),
        ({"lr": "nan"}, 2, "USAGE"),
        ({"lr": "-1"}, 2, "USAGE"),
        ({"lr": "1e300"}, 2, "USAGE"),
        ({"seed": 2**64}, 2, "USAGE"),
        ({"run_dir": ""}, 2, "USAGE"),
        ({"init": ""}, 2, "USAGE"),
        ({"mode": "distil"}, 2, "USAGE"),
        ({"dataset": None}, 2, "USAGE"),
        ({"synthetic": True}, 2, "USAGE"),
        ({"synthetic": True, "dataset": None, "tokenizer": None, "embed_tokenizer": True}, 2, "U"),
        ({"init": None, "tokenizer": None}, 2, "USAGE"),
        ({"seq_length": 33}, 3, "CONFIGURATION"),
        ({"warmup": 13}, 3, "CONFIGURATION"),
        ({"init": None, "mode": "finetune"}, 3, "CONFIGURATION"),
        ({"init": "absent"}, 5, "WEIGHTS"),
        ({"tokenizer": "absent"}, 6, "TOKENIZER"),
        ({"tokenizer": None}, 6, "TOKENIZER"),
        ({"init": None}, 6, "TOKENIZER"),
        ({"dataset": "absent"}, 7, "DATA"),
        ({"resume": True}, 8, "CHECKPOINT"),
    ],
)
def test_refusal_is_one_line_and_leaves_nothing(
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    code: int,
    status: str,
) -> None:
    """The exit code and the status say which kind it is, and there is no run directory."""
    assert cli.main(command(**changes)) == code
    refused(capsys, "USAGE" if status == "U" else status)
    assert not (tmp_path / "run").exists()


def test_tokenizer_larger_than_the_model_is_refused(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """258 ids do not fit in 257 rows: exit 6, before anything is built or made."""
    larger = write_tokenizer(tmp_path / "larger", extra=1)
    assert cli.main(command(tokenizer=larger)) == 6
    assert "the tokenizer has 258 ids" in refused(capsys, "TOKENIZER")
    assert not (tmp_path / "run").exists()


def test_dataset_of_another_tokenizer_is_refused(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same size, other file: the ids would mean other text, exit 6."""
    other = write_tokenizer(tmp_path / "other")
    (other / "vocab.bpe").write_text("#version: 0.2\n\n")
    assert cli.main(command(tokenizer=other)) == 6
    assert "another tokenizer" in refused(capsys, "TOKENIZER")
    assert not (tmp_path / "run").exists()


def test_dataset_with_ids_outside_the_model_is_refused(
    command: Command, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dataset of 258 ids for a model of 257 rows that comes with its tokenizer: exit 7."""
    dataset = prepare(tmp_path / "data", write_tokenizer(tmp_path / "larger", extra=1))
    model = shutil.copytree(inputs / "model", tmp_path / "model")
    shutil.copytree(inputs / "tokenizer", model, dirs_exist_ok=True)
    capsys.readouterr()
    assert cli.main(command(init=model, tokenizer=None, dataset=dataset)) == 7
    assert "258 ids" in refused(capsys, "DATA")
    assert not (tmp_path / "run").exists()


def test_empty_heldout_set_is_refused(
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing to validate on is a DATA error before training, not a NaN after the first epoch."""
    monkeypatch.setattr(Manifest, "heldout_tokens", 1)
    assert cli.main(command()) == 7
    assert "held-out" in refused(capsys, "DATA")
    assert not (tmp_path / "run").exists()


def test_damaged_shard_is_refused_before_training(
    command: Command, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One byte of a shard changed: its hash no longer fits the manifest, exit 7."""
    dataset = shutil.copytree(inputs / "dataset", tmp_path / "dataset")
    shard = dataset / "train-00000.bin"
    content = bytearray(shard.read_bytes())
    content[40] ^= 1
    shard.write_bytes(content)
    assert cli.main(command(dataset=dataset)) == 7
    assert "train-00000.bin" in refused(capsys, "DATA")
    assert not (tmp_path / "run").exists()


def test_full_disk_is_refused_before_training(
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Room for one checkpoint is not room for two: exit 8 with both numbers."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 12 * 23744 + 5))
    assert cli.main(command()) == 8
    assert f"{24 * 23744:,}" in refused(capsys, "CHECKPOINT")
    assert not (tmp_path / "run").exists()


def test_earlier_run_is_not_overwritten(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run into the same directory is refused, and nothing there changes."""
    assert cli.main(command(num_steps=1)) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert cli.main(command(num_steps=1)) == 3
    assert "--resume" in refused(capsys, "CONFIGURATION")
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert after == before


def test_unwritable_run_directory_is_one_line(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where a folder should be is a CONFIGURATION error, not a traceback."""
    (tmp_path / "file").write_text("")
    assert cli.main(command(run_dir=tmp_path / "file" / "run")) == 3
    refused(capsys, "CONFIGURATION")
    assert cli.main(command(run_dir=tmp_path / "file")) == 3
    refused(capsys, "CONFIGURATION")


def test_absent_gpu_exits_14_at_once_without_torch(command: Command, tmp_path: Path) -> None:
    """--device cuda without a GPU: exit 14 within two seconds, and no run directory."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trainer", *command(device="cuda")],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert time.monotonic() - started < 2
    assert done.returncode == 14
    assert done.stderr.splitlines()[-1].startswith("aprtrain: DEVICE_UNAVAILABLE: ")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "trainer.run.preflight" in imported and not imported & {"torch", "numpy"}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help of each subcommand exits 0 and shows its usage."""
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: aprtrain {name}" in capsys.readouterr().out


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
    assert cli.main(["devices", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["state"], report["torch_cuda"]) == (state, cuda)
    assert [entry["name"] for entry in report["devices"]] == names


def test_path_that_is_not_utf8_is_recorded_and_resumed(command: Command, tmp_path: Path) -> None:
    """A run directory named in Latin-1: run.json and outcome.json are JSON, and --resume works."""
    run_dir = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    assert cli.main(command(run_dir=run_dir)) == 0
    run = json.loads((Path(run_dir) / "run.json").read_text(encoding="utf-8"))
    assert run["options"]["run_dir"] == run_dir
    assert cli.main(command(run_dir=run_dir, resume=True)) == 0


def test_json_nested_without_end_is_refused_by_name(
    command: Command, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundred thousand brackets in each JSON file: the code of that file, and no traceback."""
    for option, name, code in (
        ("init", "config.json", 5),
        ("tokenizer", "encoder.json", 6),
        ("dataset", "manifest.json", 7),
    ):
        source = {"init": "model"}.get(option, option)
        folder = shutil.copytree(inputs / source, tmp_path / option)
        (folder / name).write_text("[" * 100_000)
        assert cli.main(command(**{option: folder})) == code
        assert name in capsys.readouterr().err or option == "tokenizer"


def test_file_with_more_positions_than_memory_is_refused(
    command: Command, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rotary tables for 10^9 positions: CONFIGURATION, exit 3, and nothing is left behind."""
    model = shutil.copytree(inputs / "model", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 10**9}))
    assert cli.main(command(init=model)) == 3
    assert "bytes of rotary tables" in refused(capsys, "CONFIGURATION")
    assert not (tmp_path / "run").exists()


def test_machine_without_memory_for_the_model_is_named(
    command: Command,
    inputs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A part of the model that takes 40 TB: OUT_OF_MEMORY, exit 9, and nothing is left behind."""
    monkeypatch.setattr("trainer.model.rope.rope_tables", lambda *_: (torch.empty(10**13),) * 2)
    assert cli.main(command(init=inputs / "model")) == 9
    assert "no memory left" in refused(capsys, "OUT_OF_MEMORY")
    assert not (tmp_path / "run").exists()


def test_run_that_could_not_be_recorded_can_be_started_again(
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk refuses run.json: exit 3; what is left does not pass for a run."""

    def full(path: Path, content: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(files, "write_json", full)
    assert cli.main(command(num_steps=1)) == 3
    assert "quota" in capsys.readouterr().err
    monkeypatch.undo()
    assert cli.main(command(num_steps=1)) == 0
