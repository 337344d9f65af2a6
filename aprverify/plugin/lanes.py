"""Which workers there are, and which GPU each sees.

A session runs one lane: ``cpu`` (no GPU visible), ``cuda`` (workers pinned to a GPU each), ``gpus``
(a single worker that sees them all, so that entries run one at a time) or ``all``. A worker is
pinned by ``CUDA_VISIBLE_DEVICES`` before its interpreter starts, so that one which replaces a dead
one inherits its GPU.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from aprverify.contract.model import GPUS_ALONE
from aprverify.gpus import visible_gpus

MOST_CPU_WORKERS = 8
"""Beyond this, starting workers costs more than they save, and large models want threads."""

GIB_A_WORKER = 19
"""GPU memory that a worker may count on. The dearest entries take 10 GiB, and what a worker has
freed stays with it."""

MOST_WORKERS_A_GPU = 4
"""Compiling, reading weights and float64 references are work of the CPU, during which the GPU can
serve others; more workers would wait for one another, and disturb what is timed."""


def worker_count(lane: str, *, shared: bool = False) -> int:
    """What ``-n auto`` means; `shared`: another lane takes half of the cores."""
    if lane == GPUS_ALONE:
        return 1
    cores = len(os.sched_getaffinity(0))
    gpus = visible_gpus()
    if not gpus:
        return cores
    if lane == "cpu":
        return max(1, min(cores // 2 if shared else cores, MOST_CPU_WORKERS))
    return sum(max(1, min(MOST_WORKERS_A_GPU, int(gpu.memory_gib / GIB_A_WORKER))) for gpu in gpus)


def workers_asked_for(text: str) -> int:
    """What ``-n TEXT`` means to a command that starts processes of its own.

    Raises:
        ValueError: it is neither a number from 1 nor ``auto``.
    """
    if text == "auto":
        return worker_count("all")
    if not (text.isdigit() and int(text)):
        raise ValueError(f"-n {text}: give a number from 1, or auto")
    return int(text)


def pin_workers(lane: str, specs: list[Any], *, shared: bool = False) -> None:
    """Give each worker its share of the cores and, outside the CPU lane, its GPU.

    `shared`: another lane takes half of the cores.

    Raises:
        pytest.UsageError: several workers would share GPUs that an entry needs to itself.
    """
    if lane == GPUS_ALONE:
        if len(specs) > 1:
            raise pytest.UsageError(
                f"--lane {lane}: its entries run one at a time; pass -n 0 or -n 1"
            )
        return
    threads = share_of_cores(len(specs), halved=shared)
    for index, spec in enumerate(specs):
        spec.env.setdefault("OMP_NUM_THREADS", threads)
        spec.env.update(device_of_worker(index, with_gpu=lane != "cpu"))


def share_of_cores(workers: int, *, halved: bool = False) -> str:
    """``OMP_NUM_THREADS`` of one of so many workers; `halved`: others have half of the cores."""
    cores = len(os.sched_getaffinity(0))
    return str(max(1, (cores // 2 if halved else cores) // workers))


def device_of_worker(index: int, *, with_gpu: bool) -> dict[str, str]:
    """The variable that shows a worker one GPU or, without, none."""
    if not with_gpu:
        return {"CUDA_VISIBLE_DEVICES": ""}
    gpus = visible_gpus()
    return {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)].selector} if gpus else {}


class XdistHooks:
    """Called by pytest-xdist; where that is not loaded, by nobody."""

    def __init__(self, lane: str, *, shared: bool) -> None:
        self._lane = lane
        self._shared = shared

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_setupnodes(self, config: pytest.Config, specs: list[Any]) -> None:
        """Pin workers before they start."""
        pin_workers(self._lane, specs, shared=self._shared)
