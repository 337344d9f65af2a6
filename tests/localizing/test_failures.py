"""Causes that `aprverify verify` names by itself: where they are told, and what they never cost."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Row, row_from
from aprverify.evidence.values import encode
from aprverify.localizing.failures import Limits, falsified, localized
from aprverify.talk import Talk, WorkerDied, WorkerHung
from tests.conftest import Toy, contract, falsification
from tests.evidence.builder import row

_BOUNDS = dict.fromkeys(("eager_factor", "attention_factor", "gain_factor"), 2.0)
_ADAMW = dict.fromkeys(("beta1", "beta2", "eps", "decay", "clip"), 0.5)
_FALSIFIER = """
def falsify_sum(subject, case, measured):
    measured(x=3 if case.n == 0 else case.n)
"""
_SESSION = """
import os
import time
from pathlib import Path

Path(__file__).with_name("looked").touch()

def observe(subject, constants):
    return subject, None

def account(observer):
    finding = {
        "phase": "forward", "where": "layers.1.adder", "tensor": "out", "times_bound": 412.0,
        "fault": "bias not added", "seen_in": "total",
        "sentence": "layers.1.adder: bias not added (out: error 412 × bound)",
    }
    return {"findings": [finding], "by_depth": {}, "notes": [], "looked": True}
"""
_WORSE = {
    "dies": "import os\n\ndef account(observer):\n    os._exit(9)\n",
    "hangs": "import time\n\ndef account(observer):\n    time.sleep(600)\n",
    "raises": "def account(observer):\n    raise RuntimeError('out of memory')\n",
}
_SAID = {"dies": "worker process died", "hangs": "not done after", "raises": "out of memory"}


def failing(toy: Toy, session: str, cases: int = 3) -> None:
    """A suite whose case 0 holds and whose others fail, and which can localize."""
    matrix = {"device": ["cpu"], "n": [0, *range(10, 9 + cases)]}
    tests = [
        falsification(
            "FALSIFY-TOY-001",
            "falsify_toy.falsify_sum",
            invariants=["INV-TOY-001"],
            cases=[{"scale": "full", "matrix": matrix}],
            claims=[{"id": "sum", "expr": "x == 3", "why": "one and two"}],
        )
    ]
    constants = {
        n: {"value": v, "unit": "1", "why": "some bound or other"}
        for n, v in (_BOUNDS | _ADAMW).items()
    }
    toy.contract(contract(falsification_tests=tests, constants=constants))
    toy.write(
        {
            "toysuite/falsify_toy.py": _FALSIFIER,
            "toysuite/localization/__init__.py": "",
            "toysuite/localization/session.py": session,
        }
    )


def verify(toy: Toy, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Row]]:
    """The run of the toy suite without teeth, and its rows by key."""
    folder = toy.root / "run"
    done = toy.process(
        "-m", "aprverify", "--suite", "toy", "verify", "--teeth", "none", "-n", "1",
        "--run-dir", str(folder), *options,
    )  # fmt: skip
    assert (folder / "run.jsonl").exists(), done.stdout + done.stderr
    return done, {row.key: row for row in read_run(folder).rows}


def key(n: int) -> str:
    """Of a case of `failing`."""
    return f"FALSIFY-TOY-001[device=cpu,n={n}]"


def test_the_run_and_all_that_is_made_of_it_name_the_place(toy: Toy) -> None:
    """Row, terminal, report, page, annotations and explain; what held is not run again."""
    failing(toy, _SESSION)
    done, rows = verify(toy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert rows[key(0)].localization is None
    for n in (10, 11):
        seen = rows[key(n)].localization
        assert seen is not None and seen.first is not None
        assert (seen.ending, seen.first.where, seen.outcome) == (
            "named",
            "layers.1.adder",
            "falsified",
        )
    sentence = "layers.1.adder: bias not added (out: error 412 × bound)"
    summary = done.stdout.partition("First at fault:")[2]
    assert sentence in summary and f"2 entries, as {key(10)}" in summary
    report = (toy.root / "run" / "report.md").read_text("utf-8")
    assert report.count(sentence) == 3  # once of all, once in each failure
    page = toy.root / "page.html"
    views = toy.process(
        "-m", "aprverify", "--suite", "toy", "report", str(toy.root / "run"), "--html", str(page),
        "--annotations", "--junit", str(toy.root / "junit.xml"),
    )  # fmt: skip
    for text in (views.stdout, page.read_text("utf-8"), (toy.root / "junit.xml").read_text()):
        assert "First at fault" in text and sentence in text
    told = toy.process("-m", "aprverify", "explain", str(toy.root / "run"))
    assert f"first at fault     {sentence}" in told.stdout
    assert "aprverify localize FALSIFY-TOY-001 --case=device=cpu,n=10" in told.stdout


@pytest.mark.parametrize("fault", _WORSE)
def test_naming_that_fails_is_said_and_costs_no_verdict(toy: Toy, fault: str) -> None:
    """A crash, a hang and an error: rows, outcomes and exit status are as without it."""
    observe = "\ndef observe(subject, constants):\n    return subject, None\n"
    failing(toy, _WORSE[fault] + observe)
    done, rows = verify(toy, "--localize", "6")
    assert done.returncode == 1, done.stdout + done.stderr
    assert [rows[key(n)].outcome for n in (0, 10, 11)] == ["held", "falsified", "falsified"]
    seen = [one for n in (10, 11) if (one := rows[key(n)].localization)]
    failed = [one.said for one in seen if one.ending == "failed"]
    assert failed and all(_SAID[fault] in said for said in failed)
    assert {one.ending for one in seen} <= {"failed", "left_out"}  # the hung one took all the time
    assert "not localized" in done.stdout


@pytest.mark.parametrize(("options", "n"), [(["--localize", "0"], 3), (["-k", "n:0"], 3)])
def test_nothing_is_run_again_if_told_not_to_or_if_nothing_failed(
    toy: Toy, options: list[str], n: int
) -> None:
    """A green run does not even import what would look."""
    failing(toy, _SESSION, n)
    done, rows = verify(toy, *options)
    assert all(row.localization is None for row in rows.values())
    assert not (toy.root / "toysuite/localization/looked").exists()
    assert "first at fault" not in done.stdout.lower()


def test_a_suite_that_cannot_localize_says_so(toy: Toy) -> None:
    """As a note beside the verdict, which stays."""
    failing(toy, _SESSION)
    (toy.root / "toysuite/localization/session.py").unlink()
    done, rows = verify(toy)
    seen = rows[key(10)].localization
    assert done.returncode == 1
    assert seen is not None and "cannot localize" in seen.said


# -- limits -------------------------------------------------------------------------------


class Worker:
    """Answers at once, or as `answers` says by key."""

    def __init__(self, answers: Mapping[str, Any] | None = None, seconds: float = 0.0) -> None:
        self.asked: list[str] = []
        self._answers, self._seconds = answers or {}, seconds

    def tell(self, order: Mapping[str, Any]) -> None:
        """Note what was asked."""
        self.asked.append(order["key"])

    def answer(self, patience: float | None = None) -> dict[str, Any]:
        """The answer about the last key."""
        time.sleep(self._seconds)
        answer = self._answers.get(self.asked[-1], {})
        if isinstance(answer, BaseException):
            raise answer
        finding = {
            "phase": "forward", "where": "here", "tensor": "out", "times_bound": 9.0,
            "fault": "wrong", "seen_in": "logits", "sentence": "here: wrong (out)",
        }  # fmt: skip
        return {
            "outcome": "falsified", "detail": "", "watched": True, "first": finding, "more": 0,
            "notes": [], **answer,
        }  # fmt: skip

    def close(self) -> None:
        """As a talk has it."""


def rows_of(tests: Mapping[str, int], **changes: Any) -> list[Row]:
    """Falsified rows: so many cases of each test, each slower than the one before."""
    bodies = [
        {
            **row("falsified", case=f"cpu-{n}"),
            "key": f"{test}[cpu-{n}]",
            "test": test,
            "seconds": 1.0 + n,
            **changes,
        }
        for test, cases in tests.items()
        for n in range(cases)
    ]
    return [row_from(encode(body)) for body in bodies]


def look(rows: list[Row], worker: Worker, **limits: float) -> dict[str, dict[str, Any]]:
    """`localized` with a worker that is none."""
    talks: Any = {"cpu": worker, "cuda": worker}
    return localized(rows, talks, Limits(**limits), lambda line: None)  # type: ignore[arg-type]


def test_of_several_hundred_failures_each_test_has_its_first_case_before_any_second() -> None:
    """Forty are looked at; the others are counted as left out, with the reason."""
    rows = falsified(rows_of({"A": 200, "B": 100, "C": 1}))
    worker = Worker()
    found = look(rows, worker)
    assert [k[0] for k in worker.asked[:5]] == ["A", "B", "C", "A", "B"]
    assert len(worker.asked) == 40 and len(found) == 301
    left = [body for body in found.values() if body["ending"] == "left_out"]
    assert len(left) == 261
    assert left[0]["said"] == "only the first 40 were looked at"


def test_the_time_is_for_all_entries_together() -> None:
    """What does not fit is left out, and said so."""
    worker = Worker(seconds=0.3)
    began = time.monotonic()
    found = look(rows_of({"A": 50}), worker, seconds=1.5)
    assert time.monotonic() - began < 3
    assert 1 <= len(worker.asked) < 10
    assert [*found.values()][-1]["said"] == "the 1.5 s for naming causes were used up"


def test_cases_of_a_test_that_shows_nothing_are_left_out() -> None:
    """A falsifier that starts a command shows as little in its second case."""
    worker = Worker({"A[cpu-0]": {"watched": False, "first": None}})
    found = look(rows_of({"A": 3, "B": 1}), worker)
    assert worker.asked == ["A[cpu-0]", "B[cpu-0]"]
    assert found["A[cpu-0]"]["ending"] == "nothing"
    assert found["A[cpu-2]"]["said"] == "A[cpu-0] of the same test shows nothing"


def test_an_interruption_ends_naming_and_keeps_what_was_named() -> None:
    """Whoever has seen enough presses Ctrl-C and still has a run."""
    found = look(rows_of({"A": 3}), Worker({"A[cpu-1]": KeyboardInterrupt()}))
    assert [body["ending"] for body in found.values()] == ["named", "left_out", "left_out"]


@pytest.mark.parametrize(
    ("answer", "ending", "said"),
    [
        ({"outcome": "held", "first": None}, "nothing", "nothing left its bound"),
        ({"outcome": "broken", "detail": "no\nroom", "first": None}, "nothing", "broken: no room"),
        ({"outcome": "caught"}, "failed", "no outcome"),
        ({"fault": "RuntimeError: \x1b[2J"}, "failed", "RuntimeError: \\x1b[2J"),
        (WorkerHung("hung"), "failed", "not done after 60 s"),
        (WorkerDied("the worker process died"), "failed", "died"),
    ],
)
def test_every_ending_is_told_in_one_printable_line(answer: Any, ending: str, said: str) -> None:
    """And none but the first of a row is named."""
    (body,) = look(rows_of({"A": 1}), Worker({"A[cpu-0]": answer})).values()
    assert body["ending"] == ending and body["first"] is None
    assert said in body["said"] and body["said"].isprintable()


def test_what_is_not_beyond_its_bound_is_not_named() -> None:
    """Not a number, and exactly the bound; infinitely wrong is."""
    endings = []
    for times in ("NaN", 1.0, "Infinity"):
        first = {
            "phase": "p", "where": "here", "tensor": "t", "times_bound": times, "fault": "f",
            "seen_in": "s", "sentence": "elsewhere",
        }  # fmt: skip
        (body,) = look(rows_of({"A": 1}), Worker({"A[cpu-0]": {"first": first}})).values()
        endings.append(body["ending"])
    assert endings == ["nothing", "nothing", "named"]
    assert body["said"] == "here: f" and body["first"]["times_bound"] == math.inf


# -- the worker at the other end ----------------------------------------------------------


def _process(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_a_hung_worker_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """Ranks and command lines that a falsifier has started would go on for hours otherwise."""
    alive = tmp_path / "alive"
    child = f"import time\nwhile True:\n open({str(alive)!r}, 'a').write('x')\n time.sleep(0.05)\n"
    script = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(600)\n"
    )
    talk = Talk(partial(_process, script), 60)
    talk.tell({"key": "x"})
    while not alive.exists():
        time.sleep(0.05)
    with pytest.raises(WorkerHung):
        talk.answer(0.2)
    size = alive.stat().st_size
    time.sleep(0.4)
    assert alive.stat().st_size <= size + 1


def test_after_a_death_the_next_order_has_a_worker() -> None:
    """One entry that kills its process costs the others nothing."""
    script = (
        "import json, sys\nfor line in sys.stdin:\n order = json.loads(line)\n"
        " if order['key'] == 'bad': sys.exit(1)\n print(json.dumps(order), flush=True)\n"
    )
    talk = Talk(partial(_process, script), 20)
    talk.tell({"key": "bad"})
    with pytest.raises(WorkerDied):
        talk.answer()
    talk.tell({"key": "good"})
    assert talk.answer() == json.loads('{"key": "good"}')
    talk.close()
