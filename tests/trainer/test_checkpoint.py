"""What a checkpoint holds, and what is refused when one is read or written."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.batch import TokenBatch
from trainer.checkpoint import run_directory, state
from trainer.checkpoint.capture import capture
from trainer.checkpoint.checkpoint_file import CheckpointFile
from trainer.checkpoint.digest import optimizer_state_sha
from trainer.checkpoint.epoch_metadata import EpochSummary
from trainer.checkpoint.position import RunSettings, TrainingPosition
from trainer.checkpoint.restore import restore
from trainer.checkpoint.run_directory import RunDirectory, latest
from trainer.checkpoint.writer import CheckpointWriter, WrittenCheckpoint
from trainer.config import ModelConfig
from trainer.errors import CheckpointError, NewerCheckpoint
from trainer.schedule import WarmupCosine
from trainer.trainer import PretrainTrainer
from trainer.weights import apr_layout
from trainer.weights.apr_file import AprFile
from trainer.weights.apr_writer import write_apr

SETTINGS = RunSettings(
    seed=7,
    accumulation=1,
    micro_batch_size=2,
    seq_length=12,
    world_size=1,
    steps_per_epoch=4,
    compute_dtype="float32",
    dataset_sha256="d" * 64,
    schedule=WarmupCosine(1e-3, 2, 10),
)
EPOCH = EpochSummary(
    epoch=0,
    train_loss=1.5,
    val_loss=2.0,
    wall_seconds=3.5,
    tokens_seen=48,
    grad_norm_max=4.25,
    extras={"target_reached": False},
)
NINE_FIELDS = {
    "epoch",
    "train_loss",
    "val_loss",
    "train_ppl",
    "val_ppl",
    "optimizer_state_sha",
    "wall_seconds",
    "tokens_seen",
    "grad_norm_max",
}


def position_at(step: int, settings: RunSettings = SETTINGS) -> TrainingPosition:
    return TrainingPosition(
        step=step,
        epoch=step // 4,
        tokens_seen=24 * step,
        settings=settings,
        history=(4.0, 0.1 + 0.2),
        loop={"epoch_loss_sum": 1 / 3},
    )


@pytest.fixture
def trained(
    make_trainer: Callable[..., PretrainTrainer], make_batch: Callable[..., TokenBatch]
) -> Callable[..., PretrainTrainer]:
    """A trainer after some steps."""

    def make(config: ModelConfig, steps: int = 2) -> PretrainTrainer:
        trainer = make_trainer(config)
        for step in range(steps):
            trainer.launch_step([make_batch(seed=step)]).result()
        return trainer

    return make


@pytest.fixture
def saved(
    trained: Callable[..., PretrainTrainer], llama: ModelConfig, tmp_path: Path
) -> Callable[..., Path]:
    """A checkpoint of a tiny trainer after some steps."""

    def write(steps: int = 2, path: Path | None = None, config: ModelConfig = llama) -> Path:
        path = path or RunDirectory(tmp_path).step_checkpoint(steps)
        with CheckpointWriter() as writer:
            writer.save(trained(config, steps), position_at(steps), path)
        return path

    return write


def rewrite(path: Path, **training: Any) -> None:
    """Change fields of a good checkpoint's training metadata; both checksums stay right."""
    with AprFile(path) as file:
        metadata = {**file.metadata, "training": {**file.metadata["training"], **training}}
        tensors = {name: file.tensor(name).clone() for name in file.names()}
    write_apr(path, metadata, tensors)


# What is in the file


def test_one_file_holds_every_weight_and_both_moments_of_each(
    trained: Callable[..., PretrainTrainer], config: ModelConfig, tmp_path: Path
) -> None:
    """The tensors in the file are the trainer's, bit for bit, tied and untied, with biases."""
    trainer = trained(config)
    with CheckpointWriter() as writer:
        writer.save(trainer, position_at(2), tmp_path / "a.apr")
    parameters = dict(trainer.model.named_parameters())
    with CheckpointFile(tmp_path / "a.apr") as file:
        tensors = file.tensors()
    assert len(tensors) == 3 * len(parameters)
    for name, parameter in parameters.items():
        moments = trainer.optimizer.state[parameter]
        assert torch.equal(tensors[name], parameter)
        assert torch.equal(tensors[f"__training__.optim.{name}.exp_avg"], moments["exp_avg"])
        assert torch.equal(tensors[f"__training__.optim.{name}.exp_avg_sq"], moments["exp_avg_sq"])


def test_the_position_comes_back_as_it_was(saved: Callable[..., Path]) -> None:
    """Step, epoch, tokens, settings, losses and the loop's own values survive JSON exactly."""
    with CheckpointFile(saved()) as file:
        assert file.position == position_at(2)


def test_the_metadata_holds_the_index_of_the_next_micro_batch() -> None:
    """FALSIFY-DATARESUME-002, -003: step 25,000 of 8 micro-batches goes on at number 200,000."""
    position = position_at(25_000, replace(SETTINGS, accumulation=8))
    metadata = position.to_metadata()
    assert metadata["data_batch_idx"] == 200_000
    assert TrainingPosition.from_metadata(metadata, "a file").data_batch_idx == 200_000


def test_the_optimizer_hash_is_the_documented_one(
    trained: Callable[..., PretrainTrainer], config: ModelConfig, tmp_path: Path
) -> None:
    """INV-TRAIN-003: an independent rendering gives the same hash, from trainer and file alike."""
    trainer = trained(config)
    path = tmp_path / "a.apr"
    with CheckpointWriter() as writer:
        writer.save(trainer, position_at(2), path)
    expected = hashlib.sha256()
    parameters = {name.encode(): p for name, p in trainer.model.named_parameters()}
    for name in sorted(parameters):
        moments = trainer.optimizer.state[parameters[name]]
        expected.update(name + b"\0")
        for moment in ("exp_avg", "exp_avg_sq"):
            values = moments[moment].flatten().tolist()
            expected.update(struct.pack(f"<{len(values)}f", *values))
    expected.update(struct.pack("<Q", 2))
    assert optimizer_state_sha(state.training_tensors(trainer), 2) == expected.hexdigest()
    with CheckpointFile(path) as file:
        assert file.optimizer_state_sha() == expected.hexdigest()


def test_a_restored_checkpoint_is_saved_as_the_same_bytes(
    saved: Callable[..., Path], make_trainer: Callable[..., PretrainTrainer], tmp_path: Path
) -> None:
    """F-CKPT-015: save(load(f)) == f, random state included."""
    torch.manual_seed(1234)
    path, again = saved(), tmp_path / "again.apr"
    torch.manual_seed(99)
    trainer = make_trainer(seed=8)
    position = restore(trainer, path, SETTINGS)
    with CheckpointWriter() as writer:
        writer.save(trainer, position, again)
    assert again.read_bytes() == path.read_bytes()


def test_the_random_state_comes_back(
    saved: Callable[..., Path], make_trainer: Callable[..., PretrainTrainer]
) -> None:
    """What torch draws after a restore is what it would have drawn after the checkpoint."""
    torch.manual_seed(1234)
    path = saved()
    expected = torch.rand(8)
    torch.manual_seed(99)
    restore(make_trainer(), path, SETTINGS)
    assert torch.equal(torch.rand(8), expected)


def test_further_metadata_goes_into_every_file(
    trained: Callable[..., PretrainTrainer], llama: ModelConfig, tmp_path: Path
) -> None:
    """An embedded tokenizer, for one, is in each checkpoint of a run."""
    with CheckpointWriter({"license": "MIT"}) as writer:
        for name in ("a.apr", "b.apr"):
            writer.save(trained(llama), position_at(2), tmp_path / name)
    for name in ("a.apr", "b.apr"):
        with AprFile(tmp_path / name) as file:
            assert file.metadata["license"] == "MIT"


def test_an_epoch_leaves_nine_fields_with_the_hash_of_its_own_file(
    trained: Callable[..., PretrainTrainer], llama: ModelConfig, tmp_path: Path
) -> None:
    """INV-TRAIN-002, -003: the metadata's hash can be computed again from the checkpoint."""
    path = RunDirectory(tmp_path).epoch_checkpoint(0)
    with CheckpointWriter() as writer:
        writer.save(trained(llama, 4), position_at(4), path, epoch=EPOCH)
    metadata = json.loads((tmp_path / "ckpt" / "epoch-000.metadata.json").read_text())
    assert metadata.keys() == NINE_FIELDS | {"target_reached"}
    assert metadata["val_ppl"] == pytest.approx(7.38905609893065, rel=1e-15)
    with CheckpointFile(path) as file:
        assert metadata["optimizer_state_sha"] == file.optimizer_state_sha()


def test_no_epochs_checkpoint_ever_stands_without_its_metadata(
    trained: Callable[..., PretrainTrainer],
    llama: ModelConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """INV-TRAIN-002: the metadata is whole before the checkpoint gets its name, kill or not."""
    path, seen = RunDirectory(tmp_path).epoch_checkpoint(0), []

    def look(path: Path, *content: Any) -> None:
        metadata = run_directory.epoch_metadata_path(path)
        seen.append((path.exists(), json.loads(metadata.read_text()).keys() >= NINE_FIELDS))
        write_apr(path, *content)

    monkeypatch.setattr("trainer.checkpoint.writer.write_apr", look)
    with CheckpointWriter() as writer:
        writer.save(trained(llama, 4), position_at(4), path, epoch=EPOCH)
    assert seen == [(False, True)]


# Capture


def test_a_snapshot_is_of_one_step_even_while_the_next_one_runs(
    trained: Callable[..., PretrainTrainer],
    llama: ModelConfig,
    make_batch: Callable[..., TokenBatch],
) -> None:
    """A step taken after capture changes no tensor of the snapshot."""
    trainer = trained(llama)
    snapshot = capture(trainer, position_at(2))
    expected = optimizer_state_sha(state.training_tensors(trainer), 2)
    weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.launch_step([make_batch(seed=5)]).result()
    snapshot.wait()
    assert optimizer_state_sha(snapshot.tensors, 2) == expected
    assert all(torch.equal(snapshot.tensors[name], weights[name]) for name in weights)
    assert not torch.equal(weights["model.norm.weight"], trainer.model.model.norm.weight)


def test_a_position_of_another_step_is_no_snapshot(
    trained: Callable[..., PretrainTrainer], llama: ModelConfig
) -> None:
    """A checkpoint that says step 3 but holds step 2 would lose a step; it cannot be taken."""
    with pytest.raises(ValueError, match="step 3, but the trainer is at 2"):
        capture(trained(llama), position_at(3))


def test_memory_that_is_being_written_is_not_used_for_the_next_snapshot(
    trained: Callable[..., PretrainTrainer],
    llama: ModelConfig,
    make_batch: Callable[..., TokenBatch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two checkpoints right after one another, the first on a slow disk, hold a step each."""

    def slowly(path: Path, *content: Any) -> None:
        threading.Event().wait(0.3)
        write_apr(path, *content)

    monkeypatch.setattr("trainer.checkpoint.writer.write_apr", slowly)
    trainer, expected = trained(llama), {}
    with CheckpointWriter() as writer:
        for step in (2, 3):
            expected[step] = optimizer_state_sha(state.training_tensors(trainer), step)
            writer.save(trainer, position_at(step), tmp_path / f"{step}.apr")
            trainer.launch_step([make_batch(seed=step)]).result()
    for step in (2, 3):
        with CheckpointFile(tmp_path / f"{step}.apr") as file:
            assert file.optimizer_state_sha() == expected[step]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_cuda_the_copies_are_ordered_between_two_steps(
    llama: ModelConfig, make_batch: Callable[..., TokenBatch], tmp_path: Path
) -> None:
    """The GPU is kept 50 ms behind the host, so every copy is queued, none done, when the next
    step is launched; each file still holds its own step, bit for bit."""
    trainer, copies = PretrainTrainer(llama, "cuda:0", "float32", 7, 1e-2), {}
    with CheckpointWriter() as writer:
        for step in range(1, 5):
            torch.cuda._sleep(100_000_000)  # type: ignore[no-untyped-call]
            trainer.launch_step([make_batch(seed=step)])
            copies[step] = {n: t.clone() for n, t in state.training_tensors(trainer).items()}
            writer.save(trainer, position_at(step), tmp_path / f"{step}.apr")
    for step, expected in copies.items():
        with CheckpointFile(tmp_path / f"{step}.apr") as file:
            tensors = file.tensors()
        assert all(torch.equal(tensors[name], copy.cpu()) for name, copy in expected.items())


# Refused on writing


@pytest.mark.parametrize("place", ["weight", "exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_state_that_is_not_finite_is_never_written(
    trained: Callable[..., PretrainTrainer],
    llama: ModelConfig,
    tmp_path: Path,
    place: str,
    value: float,
) -> None:
    """F-CKPT-007: weights and moments alike; the run stops, and no file of any name is left."""
    trainer = trained(llama)
    parameter = trainer.model.model.norm.weight
    target = parameter.detach() if place == "weight" else trainer.optimizer.state[parameter][place]
    target[3] = value
    path = RunDirectory(tmp_path).epoch_checkpoint(0)
    with pytest.raises(CheckpointError, match=r"F-CKPT-007.*model\.norm"), CheckpointWriter() as w:
        w.save(trainer, position_at(2), path, epoch=EPOCH)
    assert list(path.parent.iterdir()) == []


def test_a_step_that_the_device_skipped_is_never_written(
    trained: Callable[..., PretrainTrainer], llama: ModelConfig, tmp_path: Path
) -> None:
    """A state one update behind its step would resume as another run."""
    trainer = trained(llama)
    trainer.optimizer.state[trainer.model.model.norm.weight]["step"] -= 1
    with pytest.raises(CheckpointError, match="counts 1 to 2 steps"), CheckpointWriter() as writer:
        writer.save(trainer, position_at(2), tmp_path / "a.apr")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_surfaces_in_whatever_is_called_next(
    trained: Callable[..., PretrainTrainer], llama: ModelConfig, tmp_path: Path
) -> None:
    """save, poll, wait and leaving the block each raise it, once; none swallows it."""
    (tmp_path / "file").touch()
    trainer, bad = trained(llama), tmp_path / "file" / "a.apr"

    def fail_then(call: Callable[[CheckpointWriter], None]) -> None:
        with CheckpointWriter() as writer:
            writer.save(trainer, position_at(2), bad)
            with pytest.raises(CheckpointError, match=r"F-CKPT-009.*a\.apr.*bytes.*free"):
                call(writer)

    def poll(writer: CheckpointWriter) -> None:
        for _ in range(10_000):
            writer.poll()
            threading.Event().wait(0.001)

    fail_then(lambda writer: writer.save(trainer, position_at(2), tmp_path / "b.apr"))
    fail_then(lambda writer: writer.wait())
    fail_then(poll)
    with pytest.raises(CheckpointError, match="F-CKPT-009"), CheckpointWriter() as writer:
        writer.save(trainer, position_at(2), bad)
    assert not (tmp_path / "b.apr").exists()


def test_a_failed_write_is_not_lost_behind_another_error(
    trained: Callable[..., PretrainTrainer], llama: ModelConfig, tmp_path: Path
) -> None:
    """The error that ends the block keeps its type, and names the checkpoint's in a note."""
    (tmp_path / "file").touch()
    with pytest.raises(KeyError) as caught, CheckpointWriter() as writer:
        writer.save(trained(llama), position_at(2), tmp_path / "file" / "a.apr")
        raise KeyError("first")
    assert any("F-CKPT-009" in note for note in caught.value.__notes__)


def test_a_disk_that_is_too_full_is_found_before_anything_is_written(
    saved: Callable[..., Path],
    trained: Callable[..., PretrainTrainer],
    llama: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Path, bytes needed and bytes free are named; the file that stood there is as it was."""
    path = saved()
    before = path.read_bytes()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("trainer.checkpoint.writer.shutil.disk_usage", lambda _: usage)
    message = r"too full; it needs [\d,]+ bytes, 1,000 are free"
    with pytest.raises(CheckpointError, match=message), CheckpointWriter() as writer:
        writer.save(trained(llama), position_at(2), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Lets no file grow beyond a number of bytes, as a full disk would."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal by itself, so that a write fails with OSError instead.
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_write_that_fails_half_way_leaves_the_last_good_checkpoint(
    saved: Callable[..., Path],
    trained: Callable[..., PretrainTrainer],
    llama: ModelConfig,
    file_size_limit: Callable[[int], None],
) -> None:
    """F-CKPT-009: the partial file is removed, the file of that name stays, the run stops."""
    path = saved()
    before = path.read_bytes()
    file_size_limit(len(before) // 2)
    message = r"F-CKPT-009.*File too large"
    with pytest.raises(CheckpointError, match=message), CheckpointWriter() as writer:
        writer.save(trained(llama, 3), position_at(3), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_an_epoch_whose_checkpoint_failed_leaves_no_metadata(
    trained: Callable[..., PretrainTrainer],
    llama: ModelConfig,
    tmp_path: Path,
    file_size_limit: Callable[[int], None],
) -> None:
    """Metadata never stands alone once a failed write was noticed."""
    path = RunDirectory(tmp_path).epoch_checkpoint(0)
    file_size_limit(20_000)
    with pytest.raises(CheckpointError, match="F-CKPT-009"), CheckpointWriter() as writer:
        writer.save(trained(llama, 4), position_at(4), path, epoch=EPOCH)
    assert list(path.parent.iterdir()) == []


def test_on_done_is_told_what_is_on_the_disk(
    trained: Callable[..., PretrainTrainer], llama: ModelConfig, tmp_path: Path
) -> None:
    """Path, step and size, once, and after the file has its name."""
    told: list[tuple[WrittenCheckpoint, int]] = []
    path = tmp_path / "a.apr"
    with CheckpointWriter() as writer:
        writer.save(
            trained(llama),
            position_at(2),
            path,
            on_done=lambda written: told.append((written, written.path.stat().st_size)),
        )
    [(written, size)] = told
    assert (written.path, written.step, written.size_bytes) == (path, 2, size)


# Kills

KILLED_WRITER = """
import os, random, signal, struct, sys, time
from pathlib import Path
from dataclasses import replace
import torch
torch.set_num_threads(1)
from tests.trainer.conftest import LLAMA
from tests.trainer.test_checkpoint import SETTINGS, position_at
from trainer.checkpoint.checkpoint_file import CheckpointFile
from trainer.checkpoint.writer import CheckpointWriter
from trainer.trainer import PretrainTrainer

path, kills = Path(sys.argv[1]), int(sys.argv[2])
random.seed(int(sys.argv[3]))
trainer = PretrainTrainer(LLAMA, "cpu", "float32", 7, 1e-3)
name, weight = "model.norm.weight", trainer.model.model.norm.weight
with CheckpointWriter() as writer:
    writer.save(trainer, position_at(0), path)
partials = 0
for kill in range(kills):
    child = os.fork()
    if child == 0:
        with CheckpointWriter() as writer:
            for version in range(10**9):
                with torch.no_grad():
                    weight.fill_(float(version + 1))
                writer.save(trainer, position_at(0), path)
    time.sleep(random.uniform(0.001, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    partials += path.with_name(path.name + ".partial").exists()
    with CheckpointFile(path) as file:
        values = file.tensors()[name]
        assert bool((values == values[0]).all()), values
print(partials)
"""


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_kill_at_a_random_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """F-CKPT-009: after each of 40 SIGKILLs the file verifies; some of them fell into a write."""
    finished = run_script(KILLED_WRITER, str(tmp_path / "a.apr"), "40", "1")
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) > 0


KILLED_AT_BYTE = """
import os, resource, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.trainer.conftest import LLAMA
from tests.trainer.test_checkpoint import position_at
from trainer.checkpoint.writer import CheckpointWriter
from trainer.trainer import PretrainTrainer

path = Path(sys.argv[1])
trainer = PretrainTrainer(LLAMA, "cpu", "float32", 7, 1e-3)
with CheckpointWriter() as writer:
    writer.save(trainer, position_at(0), path)
before = path.read_bytes()
with torch.no_grad():
    trainer.model.model.norm.weight.fill_(2.0)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for byte in [0, 1, 63, 64, 65, *range(1000, len(before), len(before) // 40), len(before) - 1]:
    child = os.fork()
    if child == 0:
        # The kernel kills the process at the first write beyond this size.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (byte, byte))
        with CheckpointWriter() as writer:
            writer.save(trainer, position_at(0), path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXFSZ, (byte, status)
    assert path.read_bytes() == before, byte
    assert path.with_name(path.name + ".partial").stat().st_size <= byte
print("ok")
"""


def test_a_kill_at_a_chosen_byte_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """F-CKPT-009: 46 places from the first byte to the last; the old file is as it was."""
    finished = run_script(KILLED_AT_BYTE, str(tmp_path / "a.apr"))
    assert finished.stdout == "ok\n", finished.stderr


# Finding the newest good one


def sections(path: Path) -> list[int]:
    """Offsets at which a section of an APR file begins, and where it ends."""
    content = path.read_bytes()
    header = apr_layout.read_header(content[:64], len(content), path)
    return [
        0,
        64,
        header.metadata_offset + header.metadata_size,
        header.index_offset,
        header.data_offset,
        header.data_offset + 64,
        len(content) - 4,
        len(content),
    ]


def test_a_checkpoint_cut_off_anywhere_is_passed_over_by_name(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    """F-CKPT-011: cut at, before and after each section, the one before it is found instead."""
    epoch = saved(1, RunDirectory(tmp_path).epoch_checkpoint(0))
    newest = saved(2)
    content = newest.read_bytes()
    cuts = {cut + near for cut in sections(newest) for near in (-1, 0, 1)}
    for cut in sorted(cut for cut in cuts if 0 <= cut < len(content)):
        newest.write_bytes(content[:cut])
        notices: list[str] = []
        assert latest(tmp_path, notices.append) == epoch, cut
        [notice] = notices
        assert "F-CKPT-011" in notice and newest.name in notice
    newest.write_bytes(content)
    assert latest(tmp_path, pytest.fail) == newest


def test_the_newest_is_the_one_with_the_most_steps(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    """By the step in the file, over both kinds; at equal steps the epoch's, which was validated."""
    run = RunDirectory(tmp_path)
    saved(2, run.epoch_checkpoint(0))
    assert latest(tmp_path, pytest.fail) == run.epoch_checkpoint(0)
    saved(3)
    assert latest(tmp_path, pytest.fail) == run.step_checkpoint(3)
    kept = run.step_checkpoint(3).read_bytes()
    saved(3, run.epoch_checkpoint(1))
    assert not run.step_checkpoint(3).exists()
    run.step_checkpoint(3).write_bytes(kept)
    assert latest(tmp_path, pytest.fail) == run.epoch_checkpoint(1)


def test_epochs_are_ordered_as_numbers(saved: Callable[..., Path], tmp_path: Path) -> None:
    """Epoch 1000 is later than epoch 999, although its name sorts before."""
    run = RunDirectory(tmp_path)
    saved(1, run.epoch_checkpoint(999))
    saved(2, run.epoch_checkpoint(1000))
    assert latest(tmp_path, pytest.fail) == run.epoch_checkpoint(1000)


def test_without_a_good_checkpoint_there_is_nothing_to_resume(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    """No folder, an empty one, and one with nothing but damage are one named error."""
    with pytest.raises(CheckpointError, match="no good checkpoint"):
        latest(tmp_path, pytest.fail)
    path = saved()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="no good checkpoint"):
        latest(tmp_path, lambda notice: None)


def test_a_newer_checkpoint_is_not_passed_over(saved: Callable[..., Path], tmp_path: Path) -> None:
    """F-CKPT-002: going on from an older file would quietly throw the newer one's steps away."""
    saved(1, RunDirectory(tmp_path).epoch_checkpoint(0))
    rewrite(saved(2), schema_version=2)
    with pytest.raises(NewerCheckpoint, match=r"F-CKPT-002.*schema_version is 2"):
        latest(tmp_path, pytest.fail)


def test_a_checkpoint_in_a_newer_format_is_not_passed_over(
    saved: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-CKPT-002: it is a file that a later version reads, and no damage."""
    saved(1, RunDirectory(tmp_path).epoch_checkpoint(0))
    with monkeypatch.context() as later:
        later.setattr(apr_layout, "VERSION", (3, 0))
        saved(2, RunDirectory(tmp_path).epoch_checkpoint(1))
    with pytest.raises(NewerCheckpoint, match=r"F-CKPT-002.*version is 3\.0"):
        latest(tmp_path, pytest.fail)


def test_superseded_and_partial_files_are_removed(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    """A later checkpoint takes earlier ones within an epoch and what kills left; epochs stay."""
    run = RunDirectory(tmp_path)
    saved(1, run.epoch_checkpoint(0))
    saved(2)
    (run.checkpoints / "step-00000099.apr.partial").write_bytes(b"half")
    (run.checkpoints / "notes.txt").touch()
    later = run.step_checkpoint(9)
    later.touch()
    saved(3)
    names = {path.name for path in run.checkpoints.iterdir()}
    assert names == {"epoch-000.apr", "step-00000003.apr", "step-00000009.apr", "notes.txt"}
    assert run_directory.epoch_metadata_path(run.epoch_checkpoint(0)).name == (
        "epoch-000.metadata.json"
    )


# Refused on reading


def unchanged(trainer: PretrainTrainer) -> Callable[[], bool]:
    before = {name: t.clone() for name, t in state.training_tensors(trainer).items()}
    return lambda: (
        trainer.step == 0
        and all(torch.equal(t, before[n]) for n, t in state.training_tensors(trainer).items())
    )


def test_changed_settings_are_one_error_that_lists_them_all(
    saved: Callable[..., Path], make_trainer: Callable[..., PretrainTrainer]
) -> None:
    """Field, the checkpoint's value and the asked one, for each; the trainer is not touched."""
    trainer, path = make_trainer(), saved()
    same = unchanged(trainer)
    asked = replace(
        SETTINGS,
        seed=8,
        accumulation=2,
        micro_batch_size=4,
        seq_length=8,
        world_size=2,
        steps_per_epoch=5,
        compute_dtype="bfloat16",
        schedule=WarmupCosine(2e-3, 3, 20, 1e-5),
    )
    with pytest.raises(CheckpointError) as caught:
        restore(trainer, path, asked)
    for line in (
        "seed: checkpoint 7, asked 8",
        "accumulation: checkpoint 1, asked 2",
        "micro_batch_size: checkpoint 2, asked 4",
        "seq_length: checkpoint 12, asked 8",
        "world_size: checkpoint 1, asked 2",
        "steps_per_epoch: checkpoint 4, asked 5",
        "compute_dtype: checkpoint 'float32', asked 'bfloat16'",
        "schedule.lr_max: checkpoint 0.001, asked 0.002",
        "schedule.warmup_steps: checkpoint 2, asked 3",
        "schedule.total_steps: checkpoint 10, asked 20",
        "schedule.lr_min: checkpoint 0.0, asked 1e-05",
    ):
        assert line in str(caught.value)
    assert "F-CKPT-006" not in str(caught.value)
    assert same()


@pytest.mark.parametrize("asked", ["e" * 64, None])
def test_other_data_is_refused(
    saved: Callable[..., Path], make_trainer: Callable[..., PretrainTrainer], asked: str | None
) -> None:
    """F-CKPT-006: another dataset's hash, or synthetic data instead of a dataset."""
    with pytest.raises(CheckpointError, match=r"F-CKPT-006.*dataset_sha256: checkpoint 'ddd"):
        restore(make_trainer(), saved(), replace(SETTINGS, dataset_sha256=asked))


def test_another_architecture_is_refused(
    saved: Callable[..., Path],
    make_trainer: Callable[..., PretrainTrainer],
    qwen2: ModelConfig,
) -> None:
    """F-CKPT-008: the fields that differ are named, and the trainer is not touched."""
    trainer = make_trainer(qwen2)
    same = unchanged(trainer)
    with pytest.raises(CheckpointError, match=r"F-CKPT-008.*attention_bias: checkpoint False"):
        restore(trainer, saved(), SETTINGS)
    assert same()


@pytest.mark.parametrize("name", ["model.norm.weight", "exp_avg", "exp_avg_sq"])
def test_state_that_is_not_finite_is_never_read(
    saved: Callable[..., Path], make_trainer: Callable[..., PretrainTrainer], name: str
) -> None:
    """F-CKPT-013: a file with right checksums and one NaN leaves the trainer untouched."""
    trainer, path = make_trainer(), saved()
    same = unchanged(trainer)
    with AprFile(path) as file:
        entry = next(e for n, e in file.entries.items() if n.endswith(name))
        start = file.header.data_offset + entry.offset
    content = bytearray(path.read_bytes())
    content[start : start + 4] = struct.pack("<f", float("nan"))
    content[-4:] = struct.pack("<I", zlib.crc32(content[:-4]))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="F-CKPT-013"):
        restore(trainer, path, SETTINGS)
    assert same()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema_version", 2, "F-CKPT-002.*is 2, this trainer reads 1"),
        ("schema_version", 0, "F-CKPT-002.*is 0"),
        ("schema_version", "1", "training.schema_version must be an integer"),
        ("step", -1, "training.step must be an integer of at least 0, not '-1'"),
        ("step", True, "training.step must be an integer"),
        ("epoch", 1.5, "training.epoch must be an integer"),
        ("tokens_seen", None, "training.tokens_seen must be an integer"),
        ("data_batch_idx", 0, "FALSIFY-DATARESUME-002.*is 0, but step 2 × accumulation 1 is 2"),
        ("settings", [], "training.settings must be an object"),
        ("settings", {}, "training.settings.schedule is missing"),
        ("history", [1.0, "x"], "training.history must be a list of finite numbers"),
        ("loop", 3, "training.loop must be an object"),
        ("random_state", None, "training.random_state must be an object"),
    ],
)
def test_damaged_training_metadata_is_a_named_error(
    saved: Callable[..., Path], field: str, value: Any, message: str
) -> None:
    """Each field has a type; the error names file and field."""
    path = saved()
    rewrite(path, **{field: value})
    with pytest.raises(CheckpointError, match=message) as caught:
        CheckpointFile(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("states", [{"cpu": "AAAA"}, {"cpu": "no base64!"}, {"cpu": 3}])
def test_a_damaged_random_state_leaves_the_trainer_untouched(
    saved: Callable[..., Path], make_trainer: Callable[..., PretrainTrainer], states: Any
) -> None:
    """F-CKPT-004: too short, not base64, or no text at all."""
    trainer, path = make_trainer(), saved()
    same = unchanged(trainer)
    rewrite(path, random_state=states)
    with pytest.raises(CheckpointError, match=r"F-CKPT-004.*random_state\.cpu is damaged"):
        restore(trainer, path, SETTINGS)
    assert same()


@pytest.mark.parametrize("fault", ["missing", "unknown", "bfloat16"])
def test_an_incomplete_optimizer_state_is_refused(saved: Callable[..., Path], fault: str) -> None:
    """F-CKPT-004: a moment that is missing, one of no parameter, or one in another dtype."""
    path = saved()
    moment = "__training__.optim.model.norm.weight.exp_avg_sq"
    with AprFile(path) as file:
        metadata = file.metadata
        tensors = {name: file.tensor(name).clone() for name in file.names()}
    if fault == "missing":
        del tensors[moment]
    elif fault == "unknown":
        tensors["__training__.ema.model.norm.weight"] = tensors[moment]
    else:
        tensors[moment] = tensors[moment].bfloat16()
    write_apr(path, metadata, tensors)
    with pytest.raises(CheckpointError, match="F-CKPT-004"):
        CheckpointFile(path)


def test_a_file_with_weights_alone_is_no_checkpoint(saved: Callable[..., Path]) -> None:
    """F-CKPT-004: it says what the file is good for instead."""
    path = saved()
    with AprFile(path) as file:
        metadata = {name: value for name, value in file.metadata.items() if name != "training"}
        tensors = {name: file.tensor(name).clone() for name in file.model_names()}
    write_apr(path, metadata, tensors)
    with pytest.raises(CheckpointError, match=r"F-CKPT-004.*weights only.*--init"):
        CheckpointFile(path)


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    """Not a traceback: the path is named."""
    with pytest.raises(CheckpointError, match=r"absent\.apr"):
        CheckpointFile(tmp_path / "absent.apr")
    assert not os.path.exists(tmp_path / "absent.apr")
