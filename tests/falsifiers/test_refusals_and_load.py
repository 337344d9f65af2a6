"""Recording a refusal, and reading the GPU's load: neither may take a crash for an answer."""

from __future__ import annotations

import math

import pynvml
import pytest

from falsifiers.gpu_load import UtilisationReader
from falsifiers.refusals import Refusal, attempt
from falsifiers.subject import NotSupported, SubjectRefused


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
