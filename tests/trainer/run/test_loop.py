"""A run: its log, its guards and its ending."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer.batch import TokenBatch
from trainer.errors import CheckpointError, NumericalInstability
from trainer.pending import StepResult
from trainer.run import gpu_sampler, loop
from trainer.run.gpu_sampler import GpuSampler
from trainer.run.loop import run_steps
from trainer.run.metrics import MetricsLog
from trainer.schedule import WarmupCosine
from trainer.trainer import PretrainTrainer

MakeTrainer = Callable[..., PretrainTrainer]
MakeBatch = Callable[..., TokenBatch]


def logged(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_logs_six_real_metrics_a_step(
    make_trainer: MakeTrainer, make_batch: MakeBatch, tmp_path: Path
) -> None:
    """Loss, norm and rate are those of the steps; utilisation on a CPU is absent, with a reason."""
    batches = [make_batch(seed=seed) for seed in range(4)]
    schedule = WarmupCosine(0.02, 2, 4)
    seen: list[int] = []
    log = tmp_path / "train.jsonl"
    outcome = run_steps(
        make_trainer(),
        batches,
        steps=4,
        log_path=log,
        lr_schedule=schedule,
        before_step=seen.append,
    )
    twin = make_trainer()
    assert (outcome.status, outcome.steps, outcome.exit_code) == ("OK", 4, 0)
    assert seen == [0, 1, 2, 3]
    lines = logged(log)
    assert len(lines) == 4
    for step, line in enumerate(lines):
        result = twin.launch_step([batches[step]], schedule(step)).result()
        assert (line["train_loss"], line["grad_norm"]) == (result.loss, result.grad_norm)
        assert (line["step"], line["lr"]) == (step, schedule(step))
        assert line["tokens_per_sec"] > 0
        assert line["gpu_util_pct"] is None and line["gpu_util_age_s"] is None
        assert line["gpu_util_absent_reason"] == "device is cpu"


def test_exhausted_stream_is_named_and_never_made_up(
    make_trainer: MakeTrainer, make_batch: MakeBatch, tmp_path: Path
) -> None:
    """Two batches for five steps: two lines, and STREAM_EXHAUSTED with both numbers."""
    log = tmp_path / "log"
    outcome = run_steps(make_trainer(), [make_batch(), make_batch()], steps=5, log_path=log)
    assert (outcome.status, outcome.exit_code, outcome.steps) == ("STREAM_EXHAUSTED", 13, 2)
    assert "step 2 of 5" in outcome.message
    assert len(logged(log)) == 2


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_instability_ends_the_run_and_is_not_logged(
    make_trainer: MakeTrainer, make_batch: MakeBatch, tmp_path: Path, poison: float
) -> None:
    """Weights poisoned before step 2: two good lines, and nothing of the poisoned step."""
    trainer = make_trainer()

    def poison_at_two(step: int) -> None:
        if step == 2:
            with torch.no_grad():
                trainer.model.model.norm.weight[0] = poison

    log = tmp_path / "log"
    outcome = run_steps(
        trainer, [make_batch()] * 5, steps=5, log_path=log, before_step=poison_at_two
    )
    assert (outcome.status, outcome.exit_code) == ("NUMERICAL_INSTABILITY", 11)
    assert "INV-TRAIN-007: step 2" in outcome.message
    assert [line["step"] for line in logged(log)] == [0, 1]


def test_interrupt_ends_cleanly(
    make_trainer: MakeTrainer, make_batch: MakeBatch, tmp_path: Path
) -> None:
    """Ctrl-C between steps: the log is whole and the exit code 130."""

    def batches() -> Iterator[TokenBatch]:
        yield make_batch()
        raise KeyboardInterrupt

    log = tmp_path / "log"
    outcome = run_steps(make_trainer(), batches(), steps=3, log_path=log)
    assert (outcome.status, outcome.exit_code, outcome.steps) == ("INTERRUPTED", 130, 1)
    assert len(logged(log)) == 1


class FakeNvml:
    """A driver that answers `answers` in turn, then hangs until it is released."""

    class NVMLError(Exception):
        """As pynvml's."""

    def __init__(self, answers: list[int]) -> None:
        self.answers = answers
        self.released = threading.Event()

    def nvmlInit(self) -> None:
        """Nothing to start."""

    def nvmlDeviceGetUtilizationRates(self, handle: object) -> FakeNvml:
        """The next answer."""
        if not self.answers:
            self.released.wait(5)
            raise self.NVMLError("gone")
        self.gpu = self.answers.pop(0)
        return self


def test_utilisation_is_measured_and_grows_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample is reported with its age; once too old it is absent, with that age as reason."""
    nvml = FakeNvml([73])
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
    monkeypatch.setattr(gpu_sampler, "nvml_handle", lambda nvml, device: None)
    monkeypatch.setattr(gpu_sampler, "PERIOD_S", 0.01)
    monkeypatch.setattr(gpu_sampler, "OLDEST_S", 0.3)
    with GpuSampler(torch.device("cuda:0")) as sampler:
        deadline = time.monotonic() + 5
        while sampler.read().percent is None and time.monotonic() < deadline:
            time.sleep(0.005)
        fresh = sampler.read()
        time.sleep(0.35)
        stale = sampler.read()
        nvml.released.set()
    assert fresh.percent == 73 and fresh.absent_reason is None
    assert fresh.age_s is not None and fresh.age_s <= 0.3
    assert stale.percent is None
    assert stale.absent_reason is not None and "old" in stale.absent_reason


def test_failing_driver_is_the_reason_for_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    """An NVML error makes the metric absent with that error, never a number."""
    nvml = FakeNvml([])
    nvml.released.set()
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
    monkeypatch.setattr(gpu_sampler, "nvml_handle", lambda nvml, device: None)
    monkeypatch.setattr(gpu_sampler, "PERIOD_S", 0.01)
    with GpuSampler(torch.device("cuda:0")) as sampler:
        deadline = time.monotonic() + 5
        while "NVML" not in str(sampler.read().absent_reason) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert sampler.read().absent_reason == "NVML: gone"
        assert sampler.read().percent is None


class OrderedTrainer:
    """A trainer that only writes down in which order steps are launched and read."""

    lr = 0.5

    def __init__(
        self, kind: str, fails_at: int = -1, waits: Callable[[], None] = lambda: None
    ) -> None:
        self.device = torch.device(kind)
        self.order: list[str] = []
        self.fails_at, self.waits = fails_at, waits

    def launch_step(self, batches: object, lr: float) -> SimpleNamespace:
        """The next step, numbered by how many were launched."""
        step = sum(entry.startswith("launch") for entry in self.order)
        self.order.append(f"launch {step}")

        def result() -> StepResult:
            self.order.append(f"read {step}")
            self.waits()
            if step == self.fails_at:
                raise NumericalInstability(f"step {step}")
            return StepResult(1.0, 1.0)

        return SimpleNamespace(step=step, lr=lr, targets=24, result=result)


@pytest.fixture
def without_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler that asks no driver, for a trainer that only claims to be on CUDA."""
    monkeypatch.setattr(GpuSampler, "__enter__", lambda sampler: sampler)


def ordered(trainer: OrderedTrainer) -> PretrainTrainer:
    """`trainer` as the type that the loop takes."""
    return trainer  # type: ignore[return-value]


@pytest.mark.usefixtures("without_sampling")
def test_on_cuda_a_step_is_read_after_the_next_is_launched(
    make_batch: MakeBatch, tmp_path: Path
) -> None:
    """The device always has one step in hand; every step is logged, in order, the last as well."""
    trainer, log = OrderedTrainer("cuda"), tmp_path / "log"
    run_steps(ordered(trainer), [[make_batch()]] * 3, steps=3, log_path=log)
    assert trainer.order == ["launch 0", "launch 1", "read 0", "launch 2", "read 1", "read 2"]
    assert [line["step"] for line in logged(log)] == [0, 1, 2]


def test_on_a_cpu_nothing_runs_ahead(make_batch: MakeBatch, tmp_path: Path) -> None:
    """Each step is read before the next is launched."""
    trainer = OrderedTrainer("cpu")
    run_steps(ordered(trainer), [make_batch()] * 2, steps=2, log_path=tmp_path / "log")
    assert trainer.order == ["launch 0", "read 0", "launch 1", "read 1"]


@pytest.mark.usefixtures("without_sampling")
def test_rate_of_a_step_counts_from_the_end_of_the_one_before(
    make_batch: MakeBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that takes two seconds a step: 24 tokens in 2 s, although launched earlier."""
    now = 100.0

    def wait() -> None:
        nonlocal now
        now += 2.0

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now))
    trainer, log = OrderedTrainer("cuda", waits=wait), tmp_path / "log"
    run_steps(ordered(trainer), [make_batch()] * 4, steps=4, log_path=log)
    assert [line["tokens_per_sec"] for line in logged(log)] == [12.0] * 4


@pytest.mark.usefixtures("without_sampling")
def test_instability_read_late_logs_nothing_of_the_failed_step_or_after(
    make_batch: MakeBatch, tmp_path: Path
) -> None:
    """Step 1 fails with step 2 in flight: one line, and the status names step 1, not step 2."""
    trainer, log = OrderedTrainer("cuda", fails_at=1), tmp_path / "log"
    outcome = run_steps(ordered(trainer), [make_batch()] * 5, steps=5, log_path=log)
    assert (outcome.status, outcome.message) == ("NUMERICAL_INSTABILITY", "step 1")
    assert [line["step"] for line in logged(log)] == [0]


@pytest.mark.usefixtures("without_sampling")
def test_launched_step_is_logged_when_the_data_ends(make_batch: MakeBatch, tmp_path: Path) -> None:
    """Two batches for five steps on CUDA: both steps were taken, so both are in the log."""
    log = tmp_path / "log"
    outcome = run_steps(ordered(OrderedTrainer("cuda")), [make_batch()] * 2, steps=5, log_path=log)
    assert (outcome.status, outcome.steps) == ("STREAM_EXHAUSTED", 2)
    assert [line["step"] for line in logged(log)] == [0, 1]


def test_resumed_log_is_cut_back_and_continued(
    make_trainer: MakeTrainer, make_batch: MakeBatch, tmp_path: Path
) -> None:
    """Four steps logged, resumed at 2: steps 2 and 3 are the new ones, each step stands once."""
    log, batches = tmp_path / "log", [make_batch(seed=seed) for seed in range(4)]
    run_steps(make_trainer(), batches, steps=4, log_path=log)
    before = logged(log)
    resumed = make_trainer(seed=8)
    resumed.step = 2
    run_steps(resumed, batches[2:], steps=4, first_step=2, log_path=log)
    after = logged(log)
    assert [line["step"] for line in after] == [0, 1, 2, 3]
    assert after[:2] == before[:2]
    assert after[2]["train_loss"] != before[2]["train_loss"]


@pytest.mark.parametrize("content", ["", '{"step": 0}\n{"step": 2}\n', '{"step": 0}\n{"step": 1}'])
def test_log_with_missing_steps_is_refused(tmp_path: Path, content: str) -> None:
    """Too short, with a gap, or torn in its last line: nothing is cut or added."""
    log = tmp_path / "log"
    log.write_text(content)
    with pytest.raises(CheckpointError, match="INV-TRAIN-001"):
        MetricsLog(log, keep=2)
    assert log.read_text() == content
