"""One session of a campaign: workers evaluate lot after lot, the journal takes what they say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aprverify.campaign.journal import Journal
from aprverify.campaign.schedule import Lot, Schedule
from aprverify.evidence.values import decode
from aprverify.evidence.writer import utc_now
from aprverify.matrix.pool import Pool
from aprverify.talk import Talk, WorkerDied

Answer = dict[str, Any]
_VERDICTS = ("held", "falsified")
_TOLD_EVERY = 20.0


@dataclass(frozen=True)
class FalseAlarm:
    """A clean evaluation that was falsified."""

    key: str
    text: str
    observed: Any
    op: str
    bound: Any


class Session:
    """Evaluates until nothing is left, or time is up, or it is stopped.

    `tests`: the body of each test's line by its id. All are written before the first lot, so that
    one for which there was no time has its claims in the report, with none of the evaluations.
    """

    def __init__(
        self,
        journal: Journal,
        schedule: Schedule,
        tests: Mapping[str, Mapping[str, Any]],
        budget: float | None,
        alarm: Callable[[FalseAlarm], None],
    ) -> None:
        self._journal, self._schedule = journal, schedule
        self._alarm = alarm
        self._deadline = None if budget is None else time.monotonic() + budget
        self._lock = threading.Lock()
        self._stopped = False
        self._verdicts, self._told = 0, time.monotonic()
        self.alarms = 0
        written = {line["test"] for line in journal.before if line["type"] == "test"}
        for name, body in tests.items():
            if name not in written:
                journal.line("test", body)

    def run(self, pool: Pool) -> str:
        """Why it ended: ``complete``, ``budget`` or ``interrupted``."""
        why = "interrupted"
        try:
            pool.share(self._take, self._one)
            why = "complete" if self._schedule.complete else "budget"
        except KeyboardInterrupt:
            pass
        finally:
            with self._lock:
                self._stopped = True
                self._journal.line("end", {"finished": utc_now(), "why": why})
        return why

    def _take(self) -> Lot | None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return None
        return self._schedule.next()

    def _one(self, talk: Talk, lot: Lot) -> None:
        answers = _answers(talk, lot)
        with self._lock:
            if not self._stopped:
                self._note(lot, answers)

    def _note(self, lot: Lot, answers: Sequence[Answer]) -> None:
        body = lot_body(lot, answers)
        self._journal.line("lot", body)
        worthwhile = is_worthwhile(body)
        self._schedule.done(lot, body["verdicts"], body["seconds"], worthwhile=worthwhile)
        for found in body["falsified"]:
            key = lot.target.with_seed(found["seed"]).key
            sides = (found["observed"], found["op"], found["bound"])
            self._alarm(FalseAlarm(key, found["text"], *sides))
            self.alarms += 1
        self._verdicts += body["verdicts"]
        if time.monotonic() - self._told > _TOLD_EVERY:
            self._told = time.monotonic()
            print(f"  {self._verdicts} evaluations, now at {lot.target.test.id}", flush=True)


def is_worthwhile(lot: Mapping[str, Any]) -> bool:
    """Whether more seeds of its case can tell anything: some reached a verdict and were used."""
    return bool(lot["verdicts"] and lot["seed_read"])


def lot_body(lot: Lot, answers: Sequence[Answer]) -> dict[str, Any]:
    """The lot line, without type and prev; one answer a seed."""
    pairs = list(zip(lot.seeds, answers, strict=True))
    judged = [(seed, answer) for seed, answer in pairs if answer["outcome"] in _VERDICTS]
    return {
        "test": lot.target.test.id,
        "case": lot.target.case_id,
        "first": lot.first,
        "drawn": len(lot.seeds),
        "verdicts": len(judged),
        "seconds": round(sum(answer["seconds"] for answer in answers), 4),
        "seed_read": any(answer["read"] for answer in answers),
        "compared": _compared(judged),
        "falsified": [
            {"seed": seed, **{name: one[name] for name in _FALSIFIED}}
            for seed, answer in judged
            for one in answer["comparisons"]
            if not one["holds"]
        ],
        "without_verdict": [
            {"seed": seed, "outcome": answer["outcome"], "detail": answer["detail"]}
            for seed, answer in pairs
            if answer["outcome"] not in _VERDICTS
        ],
    }


_FALSIFIED = ("claim", "text", "observed", "op", "bound")


def _compared(judged: Sequence[tuple[int, Answer]]) -> list[dict[str, Any] | None]:
    """Each comparison of the test over the verdicts of a lot: a verdict made all of them."""
    made = [[(seed, one) for one in answer["comparisons"]] for seed, answer in judged]
    return [_used(column) for column in zip(*made, strict=True)]


def _used(made: Sequence[tuple[int, Answer]]) -> dict[str, Any] | None:
    shares = [(one["used"], seed, one) for seed, one in made if one["used"] is not None]
    if not shares:
        return None
    _, seed, worst = max(shares, key=lambda share: share[0])
    sides = {name: decode(worst[name]) for name in ("observed", "op", "bound")}
    values = [share for share, _, _ in shares]
    alike = len(set(values)) == 1 and len(values) == len(made)
    return {"used": values[0] if alike else values, "worst": {"seed": seed, **sides}}


def _answers(talk: Talk, lot: Lot) -> list[Answer]:
    """One answer a seed; where the process died, the seed that it was at is broken."""
    told: list[Answer] = []
    while len(told) < len(lot.seeds):
        rest = lot.seeds[len(told) :]
        try:
            talk.tell({"target": lot.target.key, "seeds": rest})
            for _ in rest:
                told.append(talk.answer())
        except WorkerDied as death:
            told.append(
                {
                    "outcome": "broken",
                    "seconds": 0.0,
                    "detail": str(death),
                    "read": True,
                    "comparisons": [],
                }
            )
    return told
