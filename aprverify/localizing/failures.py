"""What is at fault in the falsified claims of a run: each is run once more, watched, within limits.

It begins when every verdict is written and changes none. A process of its own does the work, so
that a crash, a hang or a full memory costs the name of a cause and never the row that asks for it.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from typing import Any

from aprverify.evidence.markdown import clip
from aprverify.evidence.records import CLAIM_OUTCOMES, FirstFault, Localization, Row
from aprverify.evidence.terminal import one_line
from aprverify.evidence.values import decode
from aprverify.plugin.lanes import share_of_cores
from aprverify.talk import Talk, WorkerDied, WorkerHung

SECONDS = 120.0
"""For all failed entries of a run together, unless said otherwise."""
_LONGEST_TEXT = 400
_MOST_NOTES = 4
_LEAST = 1.0
"""Seconds below which nothing is begun: a process takes as long to start."""


@dataclass(frozen=True)
class Limits:
    """What naming causes may cost: seconds in all and for one entry, and how many entries."""

    seconds: float = SECONDS
    each: float = 60.0
    entries: int = 40


def falsified(rows: Iterable[Row]) -> list[Row]:
    """The claims that failed, in the order in which they are looked at.

    The cheapest case of each test comes first, then the second of each: many cases of one test say
    less than one case of many.
    """
    by_test: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.kind == "claim" and row.outcome == "falsified":
            by_test[row.test].append(row)
    cheapest_first = [
        sorted(cases, key=lambda row: (row.seconds, row.key)) for cases in by_test.values()
    ]
    # Tests whose first case is cheap come before those that may use up the time.
    cheapest_first.sort(key=lambda cases: (cases[0].seconds, cases[0].key))
    return [row for row in chain(*zip_longest(*cheapest_first)) if row is not None]


def localized(
    rows: Sequence[Row], talks: Mapping[str, Talk], limits: Limits, report: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """By key, the ``localization`` of each of `rows`, in their order.

    Args:
        talks: a worker for the entries of each device.
        report: is told a line as each is done.
    """
    began = time.monotonic()
    found: dict[str, dict[str, Any]] = {}
    unwatched: dict[str, str] = {}
    stopped = ""
    for row in rows:
        left = limits.seconds - (time.monotonic() - began)
        if not stopped and len(found) - len(unwatched) >= limits.entries:
            stopped = f"only the first {limits.entries} were looked at"
        if not stopped and left < _LEAST:
            stopped = f"the {limits.seconds:g} s for naming causes were used up"
        other = unwatched.get(row.test)
        if stopped or other:
            found[row.key] = _told("left_out", stopped or f"{other} of the same test shows nothing")
            continue
        start = time.monotonic()
        try:
            seen, watched = _one(talks[_device(row)], row.key, min(limits.each, left))
        except KeyboardInterrupt:
            stopped, seen, watched = "stopped by the user", _told("left_out", "stopped"), True
        if not watched:
            unwatched[row.test] = row.key
        found[row.key] = {**seen, "seconds": round(time.monotonic() - start, 4)}
        report(f"{row.key}: {seen['said']}")
    for talk in talks.values():
        talk.close()
    return found


def _device(row: Row) -> str:
    return "cuda" if row.device.startswith("cuda") else "cpu"


def _one(talk: Talk, key: str, seconds: float) -> tuple[dict[str, Any], bool]:
    """The localization of one entry, and whether anything of it could be watched."""
    try:
        talk.tell({"key": key})
        answer = talk.answer(seconds)
    except WorkerHung:
        return _told("failed", f"not done after {seconds:.0f} s"), True
    except WorkerDied as death:
        return _told("failed", str(death)), True
    return _recorded(answer), bool(answer.get("watched", True))


def _recorded(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker answered, as a row holds it."""
    if "fault" in answer:
        return _told("failed", answer["fault"])
    outcome, detail = answer["outcome"], answer["detail"]
    if outcome not in CLAIM_OUTCOMES:
        return _told("failed", f"the claims ended {outcome}, which is no outcome")
    notes = tuple(_line(note) for note in answer["notes"][:_MOST_NOTES])
    first, times = answer["first"], math.nan
    if first is not None:
        times = float(decode(first["times_bound"]))
    if first is not None and times > 1:
        texts = {n: _line(first[n]) for n in ("phase", "where", "tensor", "fault", "seen_in")}
        fault = FirstFault(**texts, times_bound=times)
        said = _line(first["sentence"])
        if not said.startswith(f"{fault.where}: "):
            said = f"{fault.where}: {fault.fault}"
        return _told("named", said, fault, int(answer["more"]), outcome, notes)
    if outcome not in ("held", "falsified"):
        said = f"watched, the claim was {outcome.replace('_', ' ')}: {detail}"
    elif answer["watched"]:
        said = "nothing left its bound on the inputs that it was given"
    else:
        said = "the falsifier asks the subject for nothing that can be watched"
    return _told("nothing", said, outcome=outcome, notes=notes)


def _told(
    ending: str,
    said: str,
    first: FirstFault | None = None,
    more: int = 0,
    outcome: str | None = None,
    notes: tuple[str, ...] = (),
) -> dict[str, Any]:
    return asdict(Localization(ending, _line(said), first, more, outcome, notes, 0.0))


def _line(text: object) -> str:
    # What a process said may hold halves of characters, which no run file can.
    whole = str(text).encode("utf-8", "backslashreplace").decode()
    return clip(one_line(whole), _LONGEST_TEXT) or "no detail"


def workers(suite: str, subject: str, assets: Sequence[str]) -> dict[str, Talk]:
    """A worker for each device, as the lanes have them: the one for the CPU sees no GPU."""
    # Cases for a CPU are small, and waiting threads starve whatever else runs on the machine.
    alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    arguments = [suite, subject, *assets]
    return {
        "cpu": Talk(_starter(arguments, alone), SECONDS),
        "cuda": Talk(_starter(arguments, {"OMP_NUM_THREADS": share_of_cores(1)}), SECONDS),
    }


def _starter(
    arguments: Sequence[str], variables: Mapping[str, str]
) -> Callable[[], subprocess.Popen[str]]:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "aprverify.localizing.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **variables},
            # A group of its own: what it has started ends with it, and an interruption of ours
            # reaches it through us.
            start_new_session=True,
        )

    return start
