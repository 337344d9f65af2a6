"""A run on a GPU: proved resident, stopped and resumed bit for bit, out of memory by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import cli

Command = Callable[..., list[str]]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def steps(run_dir: Path) -> list[tuple[float, float, float]]:
    """What the log of a run says, clocks and counters of the driver left out."""
    lines = [json.loads(line) for line in (run_dir / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(len(lines)))
    return [(line["train_loss"], line["grad_norm"], line["lr"]) for line in lines]


def test_run_on_a_gpu_is_proved_resident(command: Command, tmp_path: Path) -> None:
    """INV-GPUTRAIN-003: run.json holds a proof that covers the state; memory in use is measured."""
    assert cli.main(command(device="cuda")) == 0
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert run["residency"]["proof"] in ("nvml-process", "nvml-device-memory", "torch-allocator")
    assert run["residency"]["state_bytes"] == 12 * run["parameters"]["stored"]
    assert run["residency"]["allocated_bytes"] >= run["residency"]["state_bytes"]
    assert len(steps(tmp_path / "run")) == 12


@pytest.mark.parametrize("compile", ["on", "off"])
def test_terminated_gpu_run_resumes_to_the_very_same_end(
    command: Command, tmp_path: Path, compile: str
) -> None:
    """Deterministic mode, SIGTERM in step 5, resumed: losses and last file are bitwise equal."""
    from tests.trainer.run.test_signals import signalled

    options: dict[str, Any] = {"device": "cuda", "deterministic": True, "compile": compile}
    trainer = [sys.executable, "-m", "trainer"]
    whole = command(run_dir=tmp_path / "whole", **options)
    subprocess.run([*trainer, *whole], check=True, capture_output=True)
    done = signalled(command(**options), 15)
    assert done.returncode == 143, done.stderr
    subprocess.run([*trainer, *command(resume=True, **options)], check=True, capture_output=True)
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")
    name = "ckpt/epoch-002.apr"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_loop_never_waits_for_the_device_inside_a_step(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torch told to refuse implicit synchronisation, launching a step raises nothing."""
    from trainer.trainer import PretrainTrainer

    original = PretrainTrainer.launch_step
    refused = 0

    def launch(trainer: PretrainTrainer, *arguments: Any) -> Any:
        nonlocal refused
        if trainer.step < 2:  # compilation and capture may wait
            return original(trainer, *arguments)
        torch.cuda.set_sync_debug_mode("error")
        try:
            refused += 1
            return original(trainer, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(PretrainTrainer, "launch_step", launch)
    assert cli.main(command(device="cuda")) == 0
    assert refused == 10


def test_too_little_memory_is_out_of_memory(command: Command, tmp_path: Path) -> None:
    """A ten-thousandth of the card, less than cuBLAS alone takes: exit 9 with what to lower."""
    program = (
        "import sys, torch; torch.cuda.set_per_process_memory_fraction(1e-4); "
        "from trainer import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", program, *command(device="cuda", compile="off")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    assert "--batch-size" in done.stderr and "allocated" in done.stderr
