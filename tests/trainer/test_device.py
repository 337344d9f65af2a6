"""Device specifications."""

from __future__ import annotations

import ctypes

import pytest

from trainer import device
from trainer.errors import DeviceUnavailable, UsageError


@pytest.mark.parametrize(
    "spec",
    [
        "gpu",
        "cuda:99",
        "cuda:16",
        "cuda:-1",
        "cuda:07",
        "cuda:",
        "CPU",
        "cpu:0",
        "",
        " cpu",
        "cpu\n",
        "cuda:0\n",
    ],
)
def test_malformed_specification_is_refused(spec: str) -> None:
    """Anything outside the grammar, a trailing newline included, is a UsageError that shows it."""
    with pytest.raises(UsageError) as caught:
        device.resolve_device(spec)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "count", "resolved"),
    [
        ("cpu", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
        ("cuda:15", 16, "cuda:15"),
    ],
)
def test_specification_resolves_to_a_device_that_is_there(
    spec: str, count: int, resolved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuda means cuda:0; auto takes CUDA where there is any."""
    monkeypatch.setattr(device, "visible_cuda_devices", lambda: count)
    assert device.resolve_device(spec) == resolved


@pytest.mark.parametrize(("spec", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_absent_cuda_is_never_replaced_by_the_cpu(
    spec: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA asked for and absent is DeviceUnavailable, exit code 14."""
    monkeypatch.setattr(device, "visible_cuda_devices", lambda: count)
    with pytest.raises(DeviceUnavailable) as caught:
        device.resolve_device(spec)
    assert caught.value.exit_code == 14


def test_no_driver_means_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the driver's library the probe answers 0 and does not raise."""

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert device.visible_cuda_devices() == 0
