"""Work in front of what a falsifier queues: on a CPU none, on a GPU kernels and then an event."""

from __future__ import annotations

import pytest
import torch

from falsifiers.device_work import DeviceWork


class Device:
    """Stands in for `torch.cuda`; does what it is told when it is told to."""

    def __init__(self) -> None:
        self.queued: list[str] = []
        self.done = 0

    def synchronize(self) -> None:
        self.done = len(self.queued)

    def _sleep(self, cycles: int) -> None:
        self.queued.append("wait")

    def current_stream(self) -> Device:
        return self

    def record_event(self) -> Device:
        self.queued.append("event")
        return self

    def query(self) -> bool:
        return self.done >= self.queued.index("event") + 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A GPU that is busy until somebody waits for it."""
    stands_in = Device()
    for name in ("synchronize", "_sleep", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(stands_in, name))
    return stands_in


def test_a_gpu_is_busy_until_its_work_is_done(device):
    """What was queued before is done first; the event stands behind the last kernel."""
    device.queued.append("a step")
    work = DeviceWork("cuda")
    work.begin()
    assert device.done == 1
    assert device.queued[1:-1] and set(device.queued[1:-1]) == {"wait"}
    assert device.queued[-1] == "event" and not work.is_over()
    work.wait()
    assert work.is_over()


def test_a_cpu_has_no_work_that_could_be_over(device):
    """Nothing is queued, and nothing was waited for."""
    work = DeviceWork("cpu")
    work.begin()
    work.wait()
    assert not work.is_over() and not device.queued
