"""INV-GPUTRAIN-003 without a GPU: which proof is taken from what a driver may answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from trainer.errors import ResidencyProofFailed
from trainer.run import residency
from trainer.trainer import PretrainTrainer

STATE = 1000
MakeTrainer = Callable[..., PretrainTrainer]


class Driver:
    """NVML with chosen answers."""

    def __init__(self, processes: list[tuple[int, int | None]], used: int) -> None:
        self.processes, self.used = processes, used

    def nvmlInit(self) -> None:
        """Nothing to start."""

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[SimpleNamespace]:
        """The processes, as NVML describes them."""
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> SimpleNamespace:
        """The memory in use on the card."""
        return SimpleNamespace(used=self.used)


def prove(
    monkeypatch: pytest.MonkeyPatch,
    driver: object,
    *,
    allocated: int = STATE,
    before: int | None = 0,
) -> dict[str, object]:
    """The proof for a trainer whose state takes `STATE` bytes."""
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(residency, "nvml_handle", lambda nvml, device: None)
    monkeypatch.setattr(residency, "_state_bytes", lambda trainer: STATE)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    trainer: PretrainTrainer = SimpleNamespace(device=torch.device("cuda:0"))  # type: ignore[assignment]
    return residency.prove_residency(trainer, before)


def test_own_process_in_the_drivers_list_is_the_first_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By process id, with the memory that the driver attributes to it."""
    found = prove(monkeypatch, Driver([(1, 5), (os.getpid(), 7777)], used=9999))
    assert (found["proof"], found["process_bytes"]) == ("nvml-process", 7777)


@pytest.mark.parametrize("processes", [[], [(1, 5)], [(os.getpid(), None)]])
def test_in_a_container_the_cards_memory_is_the_proof(
    monkeypatch: pytest.MonkeyPatch, processes: list[tuple[int, int | None]]
) -> None:
    """An empty, foreign or silent list: memory has grown by the state, and the reason is kept."""
    found = prove(monkeypatch, Driver(processes, used=STATE + 50), before=50)
    assert found["proof"] == "nvml-device-memory" and found["reason"]


@pytest.mark.parametrize(("used", "before"), [(STATE, 500), (STATE, None)])
def test_torchs_allocator_is_the_last_proof(
    monkeypatch: pytest.MonkeyPatch, used: int, before: int | None
) -> None:
    """A neighbour freed memory meanwhile: torch's own count, which the card's must cover."""
    found = prove(monkeypatch, Driver([], used=used), before=before)
    assert found["proof"] == "torch-allocator"


def test_without_nvml_torchs_allocator_is_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that cannot be imported is a reason, not a failure."""
    found = prove(monkeypatch, None, before=None)
    assert found["proof"] == "torch-allocator" and "NVML" in str(found["reason"])


@pytest.mark.parametrize(("allocated", "used"), [(STATE - 1, STATE), (STATE, STATE - 1), (0, 0)])
def test_memory_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, allocated: int, used: int
) -> None:
    """Too little allocated, or less on the card than torch claims: exit 15."""
    with pytest.raises(ResidencyProofFailed, match="INV-GPUTRAIN-003") as failure:
        prove(monkeypatch, Driver([], used=used), allocated=allocated, before=100)
    assert failure.value.exit_code == 15


def test_state_on_the_cpu_is_refused(make_trainer: MakeTrainer) -> None:
    """A trainer whose parameters are not on a GPU is named with the first of them."""
    with pytest.raises(ResidencyProofFailed, match=r"embed_tokens\.weight is on cpu"):
        residency.prove_residency(make_trainer(), None)
