"""A run: its log, its guards and its ending."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import gpu_sampler
from trainer.batch import TokenBatch
from trainer.gpu_sampler import GpuSampler
from trainer.loop import run_steps
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
        assert line["train_loss"] == twin.train_batch(batches[step], schedule(step))
        assert line["grad_norm"] == twin.last_grad_norm()
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
    monkeypatch.setattr(gpu_sampler, "_handle", lambda nvml, device: None)
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
    monkeypatch.setattr(gpu_sampler, "_handle", lambda nvml, device: None)
    monkeypatch.setattr(gpu_sampler, "PERIOD_S", 0.01)
    with GpuSampler(torch.device("cuda:0")) as sampler:
        deadline = time.monotonic() + 5
        while "NVML" not in str(sampler.read().absent_reason) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert sampler.read().absent_reason == "NVML: gone"
        assert sampler.read().percent is None
