"""GPUs as the driver and CUDA_VISIBLE_DEVICES name them, and the workers pinned to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from aprverify import gpus
from aprverify.plugin import lanes

_GPUS = tuple(gpus.Gpu(str(i), f"GPU-{i}{i}-aa", "RTX 4090", 24.0, "8.9") for i in range(3))


@pytest.fixture(autouse=True)
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with three GPUs."""
    monkeypatch.setattr(gpus, "_all_gpus", lambda: _GPUS)
    gpus.visible_gpus.cache_clear()
    yield
    gpus.visible_gpus.cache_clear()


@pytest.mark.parametrize(
    ("value", "visible"),
    [
        (None, "012"), ("", ""), ("1", "1"), ("2,0", "20"), (" 1 , 2 ", "12"), ("-1", ""),
        ("0,-1,1", "0"), ("0,7,1", "0"), ("GPU-11-aa", "1"), ("GPU-2", "2"), ("GPU-", ""),
        ("GPU-9", ""),
    ],
)  # fmt: skip
def test_visible_gpus_are_those_that_cuda_would_see(
    monkeypatch: pytest.MonkeyPatch, value: str | None, visible: str
) -> None:
    """By index or UUID; everything from the first unknown entry on is ignored."""
    if value is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert "".join(gpu.selector for gpu in gpus.visible_gpus()) == visible


def _pinned(lane: str, workers: int, *, threads: bool = True) -> list[str | None]:
    specs = [SimpleNamespace(env={}) for _ in range(workers)]
    lanes.pin_workers(lane, specs)
    assert all(("OMP_NUM_THREADS" in spec.env) is threads for spec in specs)
    assert all(int(spec.env.get("OMP_NUM_THREADS", 1)) >= 1 for spec in specs)
    return [spec.env.get("CUDA_VISIBLE_DEVICES") for spec in specs]


def test_workers_are_pinned_one_to_a_gpu_and_none_in_the_cpu_lane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The selector, not the position, so that a restricted session stays inside its share."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert _pinned("cuda", 3) == ["2", "0", "2"]
    assert _pinned("cpu", 2) == ["", ""]


def test_one_worker_sees_all_gpus_where_an_entry_needs_several() -> None:
    """Two would start two such entries at once."""
    assert lanes.worker_count("gpus") == 1
    assert _pinned("gpus", 1, threads=False) == [None]
    with pytest.raises(pytest.UsageError, match="one at a time; pass -n 0 or -n 1"):
        _pinned("gpus", 2)


def test_auto_means_workers_by_gpu_memory_or_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU there is one lane, of at least one worker and at most one a core."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert lanes.worker_count("cuda") == 3
    cores = len(os.sched_getaffinity(0))
    assert lanes.worker_count("cpu") == min(cores, 8)
    assert lanes.worker_count("cpu", shared=True) == max(1, min(cores // 2, 8))
    large = tuple(replace(gpu, memory_gib=79.6) for gpu in _GPUS[:2])
    monkeypatch.setattr(gpus, "_all_gpus", lambda: large)
    gpus.visible_gpus.cache_clear()
    assert lanes.worker_count("cuda") == 8
    assert _pinned("cuda", 4) == ["0", "1", "0", "1"]
    gpus.visible_gpus.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert 1 <= lanes.worker_count("all") <= len(os.sched_getaffinity(0))
