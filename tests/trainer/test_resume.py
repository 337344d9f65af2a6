"""F-CKPT-005: a run that was stopped and resumed is the run that was not, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from trainer.batch import TokenBatch
from trainer.checkpoint import state
from trainer.checkpoint.position import RunSettings, TrainingPosition
from trainer.checkpoint.restore import restore
from trainer.checkpoint.writer import CheckpointWriter
from trainer.config import ModelConfig
from trainer.errors import CheckpointError
from trainer.schedule import WarmupCosine
from trainer.trainer import PretrainTrainer

STEPS = 6
SCHEDULE = WarmupCosine(1e-2, 2, STEPS)


@dataclass
class Run:
    """A trainer with what it logged.

    Attributes:
        log: loss, gradient norm and learning rate of each step.
        micro_batches: index of each micro-batch trained on.
    """

    trainer: PretrainTrainer
    settings: RunSettings
    log: list[tuple[float, float, float]]
    micro_batches: list[int]

    def take(self, steps: int, skipped: int | None = None) -> None:
        """Go on by `steps` steps; their data follows `skipped` steps, by default all done."""
        behind = 0 if skipped is None else self.trainer.step - skipped
        for step in range(self.trainer.step, self.trainer.step + steps):
            first = (step - behind) * self.settings.accumulation
            indices = range(first, first + self.settings.accumulation)
            lr = SCHEDULE(step)
            result = self.trainer.launch_step([micro_batch(i) for i in indices], lr).result()
            self.log.append((result.loss, result.grad_norm, lr))
            self.micro_batches += indices

    def position(self) -> TrainingPosition:
        """Where the run stands."""
        step = self.trainer.step
        used = range(step * self.settings.accumulation)
        tokens_seen = sum(micro_batch(index).target_count() for index in used)
        return TrainingPosition(step, 0, tokens_seen, self.settings)


def micro_batch(index: int) -> TokenBatch:
    """Micro-batch number `index`, whose count of targets differs from its neighbours'."""
    generator = torch.Generator().manual_seed(1000 + index)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 12 - index % 5 :] = False
    return TokenBatch(torch.randint(64, (2, 13), generator=generator), mask)


def new_run(config: ModelConfig, accumulation: int, dtype: str = "float32", seed: int = 7) -> Run:
    settings = RunSettings(
        seed=7,
        accumulation=accumulation,
        micro_batch_size=2,
        seq_length=12,
        world_size=1,
        steps_per_epoch=STEPS,
        compute_dtype=dtype,
        dataset_sha256=None,
        schedule=SCHEDULE,
    )
    return Run(PretrainTrainer(config, "cpu", dtype, seed, 1e-3), settings, [], [])


def resumed_from(run: Run, path: Path) -> Run:
    """A run of a new trainer, with other initial weights, that goes on from `path`."""
    accumulation, dtype = run.settings.accumulation, run.settings.compute_dtype
    resumed = new_run(run.trainer.config, accumulation, dtype, seed=99)
    position = restore(resumed.trainer, path, run.settings)
    assert position == run.position()
    assert position.data_batch_idx == run.micro_batches[-1] + 1
    return resumed


def assert_same_state(one: PretrainTrainer, other: PretrainTrainer) -> None:
    expected = state.training_tensors(other)
    for name, tensor in state.training_tensors(one).items():
        assert torch.equal(tensor, expected[name]), name
    counts = state.optimizer_step_counts(one)
    assert torch.equal(counts, state.optimizer_step_counts(other))
    assert one.step == other.step


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_resumed_run_is_the_uninterrupted_one(
    config: ModelConfig, accumulation: int, dtype: str, tmp_path: Path
) -> None:
    """Six steps equal three, a checkpoint, and three of a fresh trainer: weights, moments, losses,
    norms and rates bitwise; tied and untied, with Qwen2's biases, with accumulation."""
    straight = new_run(config, accumulation, dtype)
    straight.take(STEPS)
    first = new_run(config, accumulation, dtype)
    first.take(3)
    with CheckpointWriter() as writer:
        writer.save(first.trainer, first.position(), tmp_path / "a.apr")
    resumed = resumed_from(first, tmp_path / "a.apr")
    resumed.take(STEPS - 3)
    assert_same_state(resumed.trainer, straight.trainer)
    assert first.log + resumed.log == straight.log
    assert first.micro_batches + resumed.micro_batches == straight.micro_batches


def test_resuming_after_every_step_changes_nothing(llama: ModelConfig, tmp_path: Path) -> None:
    """Six steps, each in a trainer of its own."""
    straight = new_run(llama, 2)
    straight.take(STEPS)
    run, log = new_run(llama, 2), []
    for step in range(STEPS):
        run.take(1)
        log += run.log
        path = tmp_path / f"{step}.apr"
        with CheckpointWriter() as writer:
            writer.save(run.trainer, run.position(), path)
        run = resumed_from(run, path)
    assert log == straight.log
    assert_same_state(run.trainer, straight.trainer)


def test_a_checkpoint_before_the_first_step_resumes(llama: ModelConfig, tmp_path: Path) -> None:
    """Step 0 is a step boundary too: moments of zero, no micro-batch used."""
    straight = new_run(llama, 1)
    straight.take(2)
    start = new_run(llama, 1)
    with CheckpointWriter() as writer:
        writer.save(start.trainer, start.position(), tmp_path / "a.apr")
    run = new_run(llama, 1, seed=99)
    assert restore(run.trainer, tmp_path / "a.apr", run.settings).data_batch_idx == 0
    run.take(2)
    assert run.log == straight.log
    assert_same_state(run.trainer, straight.trainer)


def test_a_tied_head_stays_tied(llama: ModelConfig, tmp_path: Path) -> None:
    """After a restore the head is still the embedding, not a copy that drifts away."""
    run = new_run(llama, 1)
    run.take(1)
    with CheckpointWriter() as writer:
        writer.save(run.trainer, run.position(), tmp_path / "a.apr")
    resumed = resumed_from(run, tmp_path / "a.apr")
    model = resumed.trainer.model
    assert model.head_weight is model.model.embed_tokens.weight


def test_tensors_are_restored_in_place(qwen2: ModelConfig, tmp_path: Path) -> None:
    """A CUDA graph or a compiled step holds addresses: no tensor of the trainer is replaced."""
    run = new_run(qwen2, 1)
    run.take(1)
    with CheckpointWriter() as writer:
        writer.save(run.trainer, run.position(), tmp_path / "a.apr")
    trainer = new_run(qwen2, 1, seed=99).trainer

    def addresses() -> list[int]:
        counts = [trainer.optimizer.state[p]["step"] for p in trainer.model.parameters()]
        return [t.data_ptr() for t in (*state.training_tensors(trainer).values(), *counts)]

    before = addresses()
    restore(trainer, tmp_path / "a.apr", run.settings)
    assert addresses() == before


@pytest.mark.parametrize("fault", ["moments", "data", "step", "weights"])
def test_this_file_would_notice(llama: ModelConfig, tmp_path: Path, fault: str) -> None:
    """Teeth: lost moments, data from the start, a lost step count and lost weights all differ."""
    straight = new_run(llama, 1)
    straight.take(STEPS)
    first = new_run(llama, 1)
    first.take(3)
    with CheckpointWriter() as writer:
        writer.save(first.trainer, first.position(), tmp_path / "a.apr")
    resumed = resumed_from(first, tmp_path / "a.apr")
    lost = new_run(llama, 1, seed=99).trainer
    for name, tensor in state.training_tensors(resumed.trainer).items():
        is_weight = not name.startswith("__training__.")
        if fault == ("weights" if is_weight else "moments"):
            tensor.copy_(state.training_tensors(lost)[name])
    if fault == "step":
        for parameter in resumed.trainer.model.parameters():
            resumed.trainer.optimizer.state[parameter]["step"].zero_()
    resumed.take(STEPS - 3, skipped=0 if fault == "data" else None)
    assert resumed.log != straight.log[3:]


FRESH_PROCESS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.trainer.conftest import CONFIGS
from tests.trainer.test_resume import new_run
from trainer.checkpoint.restore import restore
from trainer.checkpoint.writer import CheckpointWriter

run = new_run(CONFIGS[sys.argv[1]], 3, seed=99)
restore(run.trainer, Path(sys.argv[2]), run.settings)
run.take(3)
with CheckpointWriter() as writer:
    writer.save(run.trainer, run.position(), Path(sys.argv[3]))
print([(loss.hex(), norm.hex()) for loss, norm, _ in run.log])
"""


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_a_fresh_process_writes_the_same_last_checkpoint(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The file after six steps is the same bytes, whether one process took them or two."""
    config = request.getfixturevalue(name)
    torch.manual_seed(5)
    run = new_run(config, 3)
    half, straight, resumed = (tmp_path / f"{part}.apr" for part in ("half", "straight", "resumed"))
    with CheckpointWriter() as writer:
        run.take(3)
        writer.save(run.trainer, run.position(), half)
        run.take(3)
        writer.save(run.trainer, run.position(), straight)
    finished = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, name, str(half), str(resumed)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    expected = [(loss.hex(), norm.hex()) for loss, norm, _ in run.log[3:]]
    assert finished.stdout == f"{expected}\n", finished.stderr
    assert resumed.read_bytes() == straight.read_bytes()


def test_the_settings_of_the_checkpoint_are_needed(llama: ModelConfig, tmp_path: Path) -> None:
    """FALSIFY-DATARESUME-001: with another accumulation the next micro-batch would be another."""
    run = new_run(llama, 1)
    run.take(3)
    with CheckpointWriter() as writer:
        writer.save(run.trainer, run.position(), tmp_path / "a.apr")
    asked = replace(run.settings, accumulation=3)
    with pytest.raises(CheckpointError, match="accumulation: checkpoint 1, asked 3"):
        restore(new_run(llama, 3).trainer, tmp_path / "a.apr", asked)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_checkpoint_moves_between_devices(llama: ModelConfig, tmp_path: Path) -> None:
    """Written on the CPU, restored on a GPU, saved there: the same tensors, bit for bit."""
    run = new_run(llama, 1)
    run.take(2)
    with CheckpointWriter() as writer:
        writer.save(run.trainer, run.position(), tmp_path / "a.apr")
    on_gpu = PretrainTrainer(llama, "cuda:0", "float32", 99, 1e-3)
    restore(on_gpu, tmp_path / "a.apr", run.settings)
    expected = state.training_tensors(run.trainer)
    for name, tensor in state.training_tensors(on_gpu).items():
        assert torch.equal(tensor.cpu(), expected[name]), name
