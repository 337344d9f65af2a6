"""The readers and replayed rules behind claims about runs: right where it matters, not fooled."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aprverify.outcomes import NotRun
from aprverify.planting import load_defects, planted
from falsifiers import run_rules
from falsifiers.adapters.bundled import BundledSubject
from falsifiers.apr_container import AprContainer, AprDamaged
from falsifiers.edited_runs import checkpoints, replace_bytes
from falsifiers.made_once import made_once
from falsifiers.run_directory import RunRecord, inspect
from falsifiers.runs_under_test import run_under_test
from falsifiers.suite import SUITE
from falsifiers.tiny_runs import tiny_run, windows

WEIGHT = "model.norm.weight"
TENSORS = {
    f"__training__.optim.{WEIGHT}.exp_avg": [0.5, -0.5],
    f"__training__.optim.{WEIGHT}.exp_avg_sq": [0.25, 2.0],
    WEIGHT: [1.0, 2.0],
}
LINE = {
    "step": 0,
    "train_loss": 2.0,
    "grad_norm": 1.5,
    "lr": 0.0,
    "tokens_per_sec": 100.0,
    "gpu_util_pct": None,
    "gpu_util_absent_reason": "device is cpu",
}


def padded(content: bytes) -> bytes:
    """`content` up to the next multiple of 64 bytes."""
    return content + bytes(-len(content) % 64)


def apr_bytes(tensors: dict[str, list[float]], step: int) -> bytes:
    """An APR v2 file written by hand, from the published layout."""
    metadata = json.dumps({"training": {"step": step, "epoch": 1}}).encode()
    index, data = b"", b""
    for name, values in tensors.items():
        raw = np.array(values, dtype="<f4").tobytes()
        index += struct.pack("<H", len(name)) + name.encode() + bytes([0, 1])
        index += struct.pack("<QQQ", len(values), len(data), len(raw))
        data += padded(raw)
    places = 64, len(metadata), 64 + len(padded(metadata))
    start = places[2] + len(padded(index))
    head = b"APR\0" + bytes([2, 0]) + struct.pack("<HIQIQQ", 0x400, len(tensors), *places, start)
    head += struct.pack("<I", zlib.crc32(head + bytes(20))) + bytes(20)
    body = head + padded(metadata) + padded(index) + data
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory of two steps in one epoch."""
    folder = tmp_path / "run"
    (folder / "ckpt").mkdir(parents=True)
    lines = [LINE, {**LINE, "step": 1, "train_loss": 1.0}]
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "run.json").write_text(json.dumps({"identity": {"mode": "finetune"}}))
    (folder / "outcome.json").write_text(json.dumps({"status": "OK", "steps": 2, "epochs": 1}))
    (folder / "ckpt" / "epoch-000.apr").write_bytes(apr_bytes(TENSORS, 2))
    (folder / "ckpt" / "epoch-000.metadata.json").write_text(json.dumps({"val_loss": 1.5}))
    return folder


def test_tensors_and_metadata_of_a_file_written_by_hand_are_read(run: Path) -> None:
    """The reader follows the layout and no writer's habits."""
    file = AprContainer(checkpoints(run)[0])
    assert file.metadata["training"]["step"] == 2
    assert {name: file.tensor(name).tolist() for name in file.names} == TENSORS


def test_the_digest_is_that_of_the_published_definition(run: Path) -> None:
    """Name, NUL, both moments, then the step as u64; nothing of the weights."""
    expected = hashlib.sha256(WEIGHT.encode() + b"\0")
    expected.update(np.array([0.5, -0.5, 0.25, 2.0], dtype="<f4").tobytes())
    expected.update((2).to_bytes(8, "little"))
    found = inspect(checkpoints(run)[0])
    assert (found.fault, found.optimizer_sha) == ("", expected.hexdigest())


@pytest.mark.parametrize("position", range(0, 512, 37))
def test_any_flipped_bit_is_a_fault(run: Path, position: int) -> None:
    """Header, metadata, index, data and footer are all under a checksum."""

    def flip(content: bytearray) -> None:
        content[position % len(content)] ^= 0x04

    replace_bytes(checkpoints(run)[0], flip)
    assert inspect(checkpoints(run)[0]).fault


@pytest.mark.parametrize("length", [0, 63, 64, 200])
def test_a_truncated_file_is_damaged(run: Path, length: int) -> None:
    """It is one typed error and never a crash."""
    path = checkpoints(run)[0]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(AprDamaged):
        AprContainer(path)


def test_nan_and_missing_moments_are_faults(run: Path) -> None:
    """Right checksums do not make a training state."""
    path = checkpoints(run)[0]
    path.write_bytes(apr_bytes({**TENSORS, WEIGHT: [math.nan, 1.0]}, 2))
    assert "not finite" in inspect(path).fault
    path.write_bytes(apr_bytes({WEIGHT: [1.0, 2.0]}, 22))
    assert "moments are missing" in inspect(path).fault


def test_a_file_that_changed_is_read_again(run: Path) -> None:
    """The memory of what was read belongs to the bytes that were read."""
    path = checkpoints(run)[0]
    before = inspect(path).optimizer_sha
    path.write_bytes(apr_bytes(TENSORS, 11))
    assert inspect(path).optimizer_sha != before


def test_the_digest_of_a_record_sees_each_of_its_files(run: Path) -> None:
    """Whatever is changed afterwards, the row no longer speaks of it."""
    clean, seen = RunRecord(run).sha256(), set()
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        content = path.read_bytes()
        spoiled = apr_bytes(TENSORS, 3) if path.suffix == ".apr" else content + b" "
        path.write_bytes(spoiled)
        seen.add(RunRecord(run).sha256())
        path.write_bytes(content)
    assert len(seen) == 5 and clean not in seen
    assert RunRecord(run).sha256() == clean


@pytest.mark.parametrize(
    "change",
    [
        {"lr": None},
        {"grad_norm": "1"},
        {"step": True},
        {"train_loss": False},
        {"gpu_util_absent_reason": None},
    ],
)
def test_a_line_with_a_metric_of_another_type_is_incomplete(change: dict[str, Any]) -> None:
    """Null, text and booleans are no measurements, and an absence has a reason."""
    assert run_rules.has_six_metrics(LINE)
    assert not run_rules.has_six_metrics({**LINE, **change})
    assert not run_rules.has_six_metrics({k: v for k, v in LINE.items() if k not in change})


@pytest.mark.parametrize(
    "change",
    [
        {"train_loss": math.nan},
        {"grad_norm": math.inf},
        {"grad_norm": -1.0},
        {"tokens_per_sec": -1.0},
        {"gpu_util_pct": 100.5},
        {"gpu_util_pct": math.nan},
    ],
)
def test_a_number_out_of_range_is_impossible(change: dict[str, Any]) -> None:
    """NaN, negative norms and rates, and percentages above 100 cannot have been measured."""
    assert run_rules.is_possible(LINE)
    assert not run_rules.is_possible({**LINE, **change})


@pytest.mark.parametrize(
    ("losses", "due"),
    [
        ([5, 4, 3, 2, 1], None),
        ([1, 2, 3], None),
        ([1, 2, 3, 4], 3),
        ([5, 4, 3, 4, 5], 4),
        ([5, 4, 3, 4, 2], None),
        ([5, 4, 3, 3, 3], 4),
        ([5, 1, 2, 3, 4], 3),
    ],
)
def test_early_stop_waits_for_two_bad_epochs_and_for_epoch_three(
    losses: list[float], due: int | None
) -> None:
    """INV-TRAIN-004 by hand; an equal loss is no new best."""
    assert run_rules.early_stop(losses, patience=2, earliest=3) == due


@pytest.mark.parametrize(
    ("losses", "due"),
    [([10.0, 9.0], None), ([10.1], 0), ([2.0, 4.0], None), ([2.0, 4.1], 1), ([3.0, 1.0, 2.5], 2)],
)
def test_divergence_is_above_the_ceiling_or_above_twice_the_last(
    losses: list[float], due: int | None
) -> None:
    """INV-TRAIN-005 by hand; the limits themselves are allowed."""
    assert run_rules.divergence(losses, growth=2.0, ceiling=10.0) == due


def test_windows_hold_every_target_once(tmp_path: Path) -> None:
    """Eight ids are seven targets: two windows of three and, padded, a third with one."""
    shard = tmp_path / "shard.bin"
    np.arange(10, 18, dtype="<u4").tofile(shard)
    whole, mask = windows(shard, 3, padded=False)
    assert whole.tolist() == [[10, 11, 12, 13], [13, 14, 15, 16]] and mask is None
    filled, mask = windows(shard, 3, padded=True)
    assert filled.tolist()[2] == [16, 17, 0, 0]
    assert mask is not None and mask.tolist() == [[True] * 3, [True] * 3, [True, False, False]]


def test_a_folder_is_made_once_and_again_after_a_failure() -> None:
    """Who fails to make it leaves nothing that another takes for complete."""
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "content").write_text("here")
        if len(made) == 1:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        made_once("test", "key", make)
    first, second = made_once("test", "key", make), made_once("test", "key", make)
    assert first == second and (first / "content").read_text() == "here" and len(made) == 2
    assert made_once("test", "other key", make) != first


@pytest.fixture
def edited(tmp_path: Path) -> Iterator[Callable[[str, Path], Path]]:
    """``edited(defect, run)`` is the run directory as the falsifier sees it under the defect."""
    entered = []

    def enter(name: str, run: Path) -> Path:
        defects = load_defects(SUITE)
        context = planted(SUITE, defects[name], BundledSubject(), tmp_path / "report")
        plant = context.__enter__()
        entered.append((context, plant))
        folder: Path = plant.subject.run_directory(run)
        assert plant.changed == 1
        return folder

    yield enter
    for context, _ in entered:
        context.__exit__(None, None, None)


def test_an_edit_leaves_the_run_itself_alone(
    edited: Callable[[str, Path], Path], run: Path
) -> None:
    """A recorded run is evidence: a defect spoils a copy of it, checkpoints included."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for name in ("log-line-dropped", "checkpoint-bit-flipped", "optimizer-sha-placeholder"):
        assert edited(name, run) != run
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_swapped_moments_have_right_checksums_and_another_digest(
    edited: Callable[[str, Path], Path], run: Path
) -> None:
    """So nothing but the digest can tell."""
    clean = inspect(checkpoints(run)[0])
    spoiled = inspect(checkpoints(edited("moments-swapped", run))[0])
    assert spoiled.fault == "" and spoiled.optimizer_sha != clean.optimizer_sha


def recorded(run: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The outcome of a copy of `run` whose record was changed."""
    content = json.loads((run / "run.json").read_text())
    change(content)
    (run / "run.json").write_text(json.dumps(content))
    return run / "outcome.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run.update(device="cuda:0"), None),
        (lambda run: None, "device is 'cpu'"),
        (lambda run: run["config"].update(num_layers=24), "num_layers is 24, not 3"),
        (lambda run: run.update(trainer_sha256="0" * 64), "made by the trainer 000000000000"),
        (lambda run: run.pop("trainer_sha256"), "made by the trainer unknown"),
        (lambda run: run["resumed"].append({"trainer_sha256": "1" * 64}), "111111111111"),
    ],
)
def test_a_recorded_run_has_to_be_the_one_that_the_case_is_about(
    subject: BundledSubject, llama: dict[str, Any], tmp_path: Path, change: Any, said: str | None
) -> None:
    """Of this model, on a GPU, by this very trainer: else the claim has not run."""
    made = shutil.copytree(tiny_run(subject, "halted", llama, "cpu").folder, tmp_path / "run")

    def claim(content: dict[str, Any]) -> None:
        content["device"] = "cuda:0" if said != "device is 'cpu'" else content["device"]
        change(content)

    outcome = recorded(made, claim)
    case = SimpleNamespace(run="recorded", arch="tiny-llama", device="cpu")
    if said is None:
        assert run_under_test(subject, case, llama, lambda name: outcome).root == made
    else:
        with pytest.raises(NotRun, match=said):
            run_under_test(subject, case, llama, lambda name: outcome)
