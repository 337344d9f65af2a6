"""Processes that work through defects and clean seeds, and what becomes of one that dies.

A process is started anew after a defect that crashed it or left something behind, so that one
defect never colours what is said of the next.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.compared.limits import Limits, run_limited
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
        limits: of each trial; it is ended beyond them, and the next one begun.
    """

    what: str
    observer: Mapping[str, Any]
    until: float = math.inf
    limits: Limits = field(default_factory=Limits)


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
    begun: Line = {}  # the item that a process did not come to the end of
    while len(done) < len(items) and time.time() < work.until:
        rest = items[len(done) :]
        one_each = work.what == "clean"  # the beginning of random numbers is the process's
        answers, code, exceeded = _one_process(work, rest[:1] if one_each else rest, begun)
        new = _lines(answers, begun)
        begun = new.pop() if new and not new[-1].pop("over") else {}
        for line in new:
            line.pop("over", None)
            told(line)
        done += new
        if code in (0, LEFT_BEHIND) or len(done) == len(items):
            continue
        begun = {**begun, "item": items[len(done)]}
        checks = begun.pop("begun", ())
        if exceeded and checks:
            ended = {"outcome": EXCEEDED, "by": exceeded, "seconds": None}
            begun["findings"] = {**begun.get("findings", {}), **dict.fromkeys(checks, ended)}
        else:
            why = f"took {exceeded}" if exceeded else f"ended with {code}"
            done.append({"item": begun["item"], "broken": f"the process {why}"})
            begun = {}
    return done


def _lines(answers: Sequence[Line], begun: Line) -> list[Line]:
    """A line for each item, of all that was said of it; the last may not be over."""
    lines: dict[str, Line] = {begun["item"]: {**begun, "over": False}} if begun else {}
    for answer in answers:
        line = lines.setdefault(answer["item"], {})
        findings = {**line.get("findings", {}), **answer.get("findings", {})}
        line |= {"over": False, **answer}
        if findings:
            line["findings"] = findings
            if "findings" in answer:
                line.pop("begun", None)
    return list(lines.values())


LEFT_BEHIND = 3
"""Exit status of a process whose canary differs after a defect."""
EXCEEDED = "exceeded"
_WORKER = ("-m", "benchmarks.compared.worker")


def _one_process(work: Work, items: Sequence[str], begun: Line) -> tuple[list[Line], int, str]:
    """All answers, the exit status, and the limit that was exceeded, or ""."""
    with tempfile.TemporaryDirectory(prefix="compared-work-") as folder:
        job, answers = Path(folder) / "job.json", Path(folder) / "answers.jsonl"
        order = {"what": work.what, "observer": work.observer, "items": items, "until": work.until}
        order["done"] = {begun["item"]: list(begun.get("findings", ()))} if begun else {}
        job.write_text(json.dumps(order))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        if work.what == "clean":
            environment[VARIABLE] = items[0]
        argv = [sys.executable, *_WORKER, str(job), str(answers)]
        code, exceeded = run_limited(argv, environment, answers, work.limits)
        text = answers.read_text() if answers.exists() else ""
        # A process that is ended may leave half a line.
        whole = text[: text.rfind("\n") + 1]
        return [json.loads(line) for line in whole.splitlines()], code, exceeded
