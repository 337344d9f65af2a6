"""Which workers there are, and which GPU each sees.

A session runs one lane: ``cpu`` (one worker a core, no GPU visible), ``cuda`` (one worker a GPU,
pinned to it) or ``all``. A worker is pinned by ``CUDA_VISIBLE_DEVICES`` before its interpreter
starts, so that a worker which replaces a dead one inherits its GPU.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from aprverify.gpus import visible_gpus

MOST_CPU_WORKERS = 8
"""Beyond this, starting workers costs more than they save, and large models want threads."""


def worker_count(lane: str) -> int:
    """What ``-n auto`` means."""
    cores = len(os.sched_getaffinity(0))
    gpus = len(visible_gpus())
    if not gpus:
        return cores
    # A CPU lane runs beside a CUDA lane, whose workers keep a core each.
    return max(1, min(cores - gpus, MOST_CPU_WORKERS)) if lane == "cpu" else gpus


def pin_workers(lane: str, specs: list[Any]) -> None:
    """Give each worker its share of the cores and, outside the CPU lane, its GPU."""
    gpus = visible_gpus()
    cores = len(os.sched_getaffinity(0))
    # Where there is a GPU two lanes run side by side, and each takes half of the cores.
    share = cores // 2 if gpus and lane != "all" else cores
    threads = max(1, share // len(specs))
    for index, spec in enumerate(specs):
        spec.env.setdefault("OMP_NUM_THREADS", str(threads))
        if lane == "cpu":
            spec.env["CUDA_VISIBLE_DEVICES"] = ""
        elif gpus:
            spec.env["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)].selector


class XdistHooks:
    """Registered only where pytest-xdist is loaded."""

    def __init__(self, lane: str) -> None:
        self._lane = lane

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_setupnodes(self, config: pytest.Config, specs: list[Any]) -> None:
        """Pin workers before they start."""
        pin_workers(self._lane, specs)
