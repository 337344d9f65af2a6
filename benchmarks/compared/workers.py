"""Processes that work through defects and clean seeds, and what becomes of one that dies.

A process is started anew after a defect that crashed it or left something behind, so that one
defect never colours what is said of the next.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compared.seed import VARIABLE

Line = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """What a process does with each item: ``watch``, ``clean`` or ``defect``.

    Attributes:
        what: watch: the numbers of a clean run of a seed. clean: every check without a defect, from
            another beginning of its random numbers. defect: every check under a defect.
        observer: bands of the observers of curves; empty for ``watch``.
        until: seconds since the epoch after which nothing is begun.
    """

    what: str
    observer: Mapping[str, Any]
    until: float = math.inf


def work_through(
    work: Work, items: Sequence[str], workers: int, told: Callable[[Line], None]
) -> list[Line]:
    """A line for each item that was begun in time; `told` hears of each batch when it ends."""
    shares = [list(items[number::workers]) for number in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(lambda share: _share(work, share, told), shares)
        lines = {line["item"]: line for part in done for line in part}
    return [lines[item] for item in items if item in lines]


def _share(work: Work, items: list[str], told: Callable[[Line], None]) -> list[Line]:
    done: list[Line] = []
    while len(done) < len(items) and time.time() < work.until:
        rest = items[len(done) :]
        one_each = work.what == "clean"  # the beginning of random numbers is the process's
        new, code = _one_process(work, rest[:1] if one_each else rest, told)
        done += new
        if code not in (0, LEFT_BEHIND) and len(done) < len(items):
            done.append({"item": items[len(done)], "broken": f"the process ended with {code}"})
    return done


LEFT_BEHIND = 3
"""Exit status of a process whose canary differs after a defect."""


def _one_process(
    work: Work, items: Sequence[str], told: Callable[[Line], None]
) -> tuple[list[Line], int]:
    with tempfile.TemporaryDirectory(prefix="compared-work-") as folder:
        job, answers = Path(folder) / "job.json", Path(folder) / "answers.jsonl"
        order = {"what": work.what, "observer": work.observer, "items": items, "until": work.until}
        job.write_text(json.dumps(order))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        if work.what == "clean":
            environment[VARIABLE] = items[0]
        argv = [sys.executable, "-m", "benchmarks.compared.worker", str(job), str(answers)]
        code = subprocess.run(argv, env=environment, check=False).returncode
        text = answers.read_text() if answers.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        for line in lines:
            told(line)
        return lines, code
