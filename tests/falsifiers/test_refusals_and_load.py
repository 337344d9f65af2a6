"""Recording a refusal, and reading the GPU's load: neither may take a crash for an answer."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pynvml
import pytest
import torch

from falsifiers.gpu_load import UtilisationReader, keeping_busy
from falsifiers.refusals import Refusal, attempt
from falsifiers.subject import Batch, NotSupported, SubjectRefused


def refuse() -> None:
    raise SubjectRefused("USAGE", "device 'gpu' is malformed")


def test_a_refusal_is_recorded_with_kind_and_message():
    """The name and the words that a user would read."""
    assert attempt(refuse) == Refusal(True, "USAGE", "device 'gpu' is malformed")


def test_what_is_accepted_is_no_refusal():
    """Whatever the action returns, None included."""
    assert attempt(lambda: None) == Refusal(False, "", "")


@pytest.mark.parametrize("error", [KeyError, AssertionError, NotSupported, MemoryError])
def test_a_crash_is_no_refusal(error):
    """A trainer that falls over its input has not refused it."""

    def crash() -> None:
        raise error("crashed")

    with pytest.raises(error, match="crashed"):
        attempt(crash)


def test_late_mean_is_of_the_second_half():
    """Half of the time, not of the samples: the first samples are of a GPU still idle."""
    reader = UtilisationReader()
    reader._samples = [(0.0, 0.0), (0.1, 0.0), (0.2, 0.0), (5.0, 80.0), (10.0, 100.0)]
    assert reader.late_mean() == 90.0


def test_no_sample_is_not_a_number():
    """Nothing read is NaN, which no claim accepts, and not zero."""
    assert math.isnan(UtilisationReader().late_mean())


def test_a_reader_without_driver_fails_at_once(monkeypatch):
    """The reader's own failure is an error and does not become a disagreement."""

    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    with pytest.raises(pynvml.NVMLError), UtilisationReader():
        pass


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, 0), ("", 0), ("2,0", 2), (" 3", 3), ("GPU-8a5f,GPU-1", "GPU-8a5f")],
)
def test_the_first_visible_gpu_is_read(visible, expected, monkeypatch):
    """An index or a UUID, as CUDA_VISIBLE_DEVICES may hold either."""
    asked: list[object] = []

    class Rates:
        gpu = 50

    def handle(selector: object) -> object:
        asked.append(selector)
        return selector

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda _: Rates)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with UtilisationReader():
        pass
    assert asked == [expected]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_card_kept_busy_reads_as_busy():
    """From the first batch on, though nothing else is done with it."""
    batch = Batch(torch.zeros((1, 2), dtype=torch.int64))
    with UtilisationReader() as reader:
        assert sum(1 for _ in keeping_busy(batch, 50)) == 50
    assert reader.late_mean() >= 80


def test_kernels_wait_in_front_of_every_batch(monkeypatch):
    """A second's worth before the first batch, then one each, and never many ahead."""
    waiting, most, done = [], [], []

    class Event:
        def synchronize(self) -> None:
            done.append(waiting.pop(0))

    class Stream:
        def record_event(self) -> Event:
            return Event()

    def sleep(cycles: int) -> None:
        waiting.append(cycles)
        most.append(len(waiting))

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "_sleep", sleep)
    batches = keeping_busy(Batch(torch.zeros((1, 2), dtype=torch.int64)), 3)
    next(batches)
    assert sum(done + waiting) > 1.5e9  # cycles: most of a second at the highest clock there is
    before = len(most)
    assert len(list(batches)) == 2
    assert len(most) == before + 2
    assert max(most) <= 5
