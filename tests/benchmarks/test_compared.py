"""The comparison with what others rely on: its rules, a few defects, and what it writes."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aprverify.planting import Defect, load_defects
from benchmarks.compared import hf_modeling, liger_operators, trial, upstream, workers
from benchmarks.compared.__main__ import main
from benchmarks.compared.bands import Bands, loss_numbers, spike, student_quantile
from benchmarks.compared.checks import Check, Test
from benchmarks.compared.comparing import Red, liger_close, torch_close, within
from benchmarks.compared.curves import Curve
from benchmarks.compared.limits import Limits, run_limited
from benchmarks.compared.report import page, table
from benchmarks.compared.wilson import wilson
from benchmarks.compared.workers import Line, Work, work_through
from falsifiers.suite import SUITE

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("compared-*/compared.json"))


@pytest.fixture(scope="module")
def defects() -> dict[str, Defect]:
    """Every planted defect by id."""
    return load_defects(SUITE)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)],
)
def test_wilson_gives_the_published_intervals(
    successes: int, trials: int, low: float, high: float
) -> None:
    """Values of statistics textbooks, to four digits."""
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_refuses_what_is_no_proportion() -> None:
    """Nothing of nothing has no interval."""
    for successes, trials in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="is no proportion"):
            wilson(successes, trials)


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [(0.975, 1, 12.7062), (0.975, 9, 2.26216), (0.9995, 19, 3.88341), (0.95, 120, 1.65765)],
)
def test_student_quantiles_are_those_of_tables(
    probability: float, freedom: int, quantile: float
) -> None:
    """From one degree of freedom, where the tail is longest, to many."""
    assert student_quantile(probability, freedom) == pytest.approx(quantile, rel=1e-4)


def _bands() -> Bands:
    return Bands.of([{"x": 1.0 + 0.01 * i} for i in range(9)], {"run": "OK"})


@pytest.mark.parametrize(
    ("value", "alarm"), [(1.04, ""), (1.09, ""), (3.0, "x: 3"), (math.nan, "x: nan")]
)
def test_a_band_lets_clean_runs_pass_and_nothing_that_is_no_number(
    value: float, alarm: str
) -> None:
    """NaN is in no band."""
    found = _bands().alarm({"x": value}, {"run": Curve()})
    assert found.startswith(alarm) and bool(found) == bool(alarm)


def test_a_curve_that_ends_early_or_otherwise_raises_an_alarm() -> None:
    """Missing numbers, and another ending."""
    assert _bands().alarm({}, {"run": Curve()}) == "x is missing"
    stopped = _bands().alarm({"x": 1.04}, {"run": Curve(ending="KeyError: 'step'")})
    assert stopped == "run ended with KeyError: 'step'"


def test_a_loss_that_jumps_or_is_not_finite_is_a_spike() -> None:
    """Twice the mean of ten steps, and not a little less."""
    calm = [2.0] * 12
    assert spike({"run": Curve([*calm, 5.9])}) == ""
    assert "jumps to 6.1" in spike({"run": Curve([*calm, 6.1])})
    assert "is nan" in spike({"run": Curve([*calm, math.nan])})


def test_windows_of_ten_losses_are_what_is_looked_at() -> None:
    """A rest of fewer than ten is not a window."""
    numbers = loss_numbers({"run": Curve([1.0] * 10 + [3.0] * 15, heldout=[2.5])})
    assert numbers == {
        "run loss 0–9": 1.0,
        "run loss 10–19": 3.0,
        "run held-out loss 0": 2.5,
    }


def test_tensors_are_compared_with_the_quirks_of_those_who_do_so() -> None:
    """Liger calls two NaN equal, torch does not; a limit holds for no NaN."""
    tolerance = upstream.RMSNORM["float32"]
    nan = torch.tensor([math.nan, 1.0])
    liger_close("x", nan, nan, tolerance)
    with pytest.raises(Red):
        torch_close("x", nan, nan, tolerance)
    with pytest.raises(Red, match="1 of 2 elements"):
        liger_close("x", torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.01]), tolerance)
    with pytest.raises(Red):
        within("x", math.nan, 0.0, upstream.ACCUMULATION_LOSS)


def test_no_check_is_red_without_a_defect(tmp_path: Path) -> None:
    """Of the quick ones, one of each kind."""
    from falsifiers.adapters.bundled import BundledSubject

    for test in _QUICK.tests.values():
        test(BundledSubject(), tmp_path)


_QUICK = Check(
    "quick",
    "quick",
    {
        "operator SwiGLU": liger_operators.swiglu,
        "operator RMSNorm": liger_operators.rmsnorm,
        "golden logits": hf_modeling.TESTS["golden logits llama"],
    },
)


@pytest.mark.parametrize(
    ("defect", "outcome", "by"),
    [
        ("gelu-for-silu", "caught", "operator SwiGLU: "),
        ("rmsnorm-weight-plus-one", "caught", "operator RMSNorm: "),
        ("mask-absent", "caught", "golden logits: "),
        ("rope-angles-in-float32", "missed", ""),
        ("recorded-loss-constant", "unreached", ""),
        ("resume-restarts-data", "unreached", ""),
    ],
)
def test_a_defect_is_caught_missed_or_out_of_reach(
    defects: dict[str, Defect], defect: str, outcome: str, by: str
) -> None:
    """Out of reach is what was not in force while the check ran."""
    finding = trial.tested(defects[defect], _QUICK)
    assert finding.outcome == outcome
    assert finding.by.startswith(by)


def test_a_test_that_raises_is_red_and_a_dear_one_waits_for_the_cheap(
    defects: dict[str, Defect],
) -> None:
    """Where no cheap test called the altered code, a dear one does not run."""

    def crash(*_: object) -> None:
        raise KeyError("gone")

    reaching: dict[str, Test] = {"logits": hf_modeling.TESTS["golden logits llama"]}
    defect = defects["rope-angles-in-float32"]
    found = trial.tested(defect, Check("c", "c", reaching, None, {"dear": crash}))
    assert (found.outcome, found.by) == ("caught", "dear: KeyError: 'gone'")
    elsewhere: dict[str, Test] = {"operator": liger_operators.rmsnorm}
    found = trial.tested(defect, Check("c", "c", elsewhere, None, {"dear": crash}))
    assert (found.outcome, found.by) == ("unreached", "")


def _dying(dies_at: str) -> Callable[..., tuple[list[Line], int, str]]:
    def process(work: Work, items: list[str], begun: Line) -> tuple[list[Line], int, str]:
        done = items[: items.index(dies_at)] if dies_at in items else items
        code = 0 if done == items else -9
        return [{"item": item, "over": True} for item in done], code, ""

    return process


def test_a_defect_that_kills_its_process_is_broken_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process is started anew behind it."""
    monkeypatch.setattr(workers, "_one_process", _dying("c"))
    lines = work_through(Work("defect", {}), list("abcde"), 1, lambda line: None)
    assert [line["item"] for line in lines] == list("abcde")
    assert [line.get("broken") for line in lines] == [
        None,
        None,
        "the process ended with -9",
        None,
        None,
    ]


_SLEEPING_WORKER = """
import sys, time
from aprverify.planting import PROTOCOL, Defect, load_defects
from benchmarks.compared import trial, worker
from benchmarks.compared.checks import Check
from benchmarks.compared.liger_operators import swiglu
from falsifiers.suite import SUITE

def sleeps(plant):
    def wrap(subject):
        plant.effect(True)
        time.sleep(600)
    plant.wrap_subject(wrap)

real = load_defects(SUITE)["gelu-for-silu"]
sleeper = Defect(**{**vars(real), "id": "sleeps", "kind": PROTOCOL, "plant": sleeps})
checks = (Check("liger", "", {"swiglu": swiglu}), Check("trainer", "", {"swiglu": swiglu}))
trial.CHECKS = checks
clean_trials = trial.trials

def few(defect, observer):
    found = clean_trials(defect, observer)
    if defect.id == "sleeps":  # caught by the first check, asleep under the second
        found["liger",] = lambda: {"liger": trial.Finding("caught", "swiglu: ", 0.1)}
    return {key: found[key] for key in (("liger",), ("trainer",))}

worker.trials, worker.record_golden_values = few, lambda: None
worker.load_defects = lambda suite: {"sleeps": sleeper, "gelu-for-silu": real}
sys.exit(worker.main())
"""


def test_a_defect_that_sleeps_is_ended_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the checks before it found is kept, and the next defect is tried."""
    script = tmp_path / "worker.py"
    script.write_text(_SLEEPING_WORKER)
    monkeypatch.setattr(workers, "_WORKER", (str(script),))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    observer = {"seed": 1, "endings": {}, "losses": {}, "norms": {}}
    work = Work("defect", observer, limits=Limits(seconds=15.0))  # three of them start torch
    told: list[Line] = []
    lines = work_through(work, ["sleeps", "gelu-for-silu"], 1, told.append)
    assert lines == told
    hung, other = lines
    assert hung["findings"]["liger"]["outcome"] == "caught"
    assert hung["findings"]["trainer"] == {
        "outcome": "exceeded",
        "by": "more than 15 s",
        "seconds": None,
    }
    assert {f["outcome"] for f in other["findings"].values()} == {"caught"}
    assert all("broken" not in line for line in lines)


def test_all_that_an_ended_process_started_is_ended_and_counted(tmp_path: Path) -> None:
    """Its children's memory is its own, and none of them is left."""
    child = (
        "import sys, time; held = bytearray(300_000_000); open(sys.argv[1], 'w'); time.sleep(60)"
    )
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    argv = [sys.executable, "-c", parent, child, str(tmp_path / "started")]
    code, exceeded = run_limited(argv, os.environ, tmp_path / "answers", Limits(60.0, 0.25))
    assert (code, exceeded) == (-signal.SIGKILL, "more than 0.25 GiB")
    running = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    assert not any(str(tmp_path).encode() in line for line in running)


def test_a_trial_may_take_long_if_the_last_answer_is_recent(tmp_path: Path) -> None:
    """The limit is one of each answer and not of the process."""
    talking = (
        "import sys, time\n"
        "for _ in range(5): time.sleep(0.4); print('x', file=open(sys.argv[1], 'a'))"
    )
    answers = tmp_path / "answers"
    argv = [sys.executable, "-c", talking, str(answers)]
    assert run_limited(argv, os.environ, answers, Limits(seconds=1.5)) == (0, "")


def test_what_exceeded_a_limit_is_neither_caught_nor_missed(results: dict[str, Any]) -> None:
    """It has its own word in the table, and a sentence on the page that names it."""
    chosen = next(e for e in results["defects"] if e["id"] == "one-operator-off")
    ended = {"outcome": "exceeded", "by": "more than 600 s", "seconds": None}
    findings = {**dict.fromkeys(chosen["findings"], chosen["findings"]["norm"]), "trainer": ended}
    body = {**results, "defects": [{**chosen, "findings": findings}]}
    assert "| exceeded |" in table(body)
    text = page(body, Path("x"))
    assert "| HF Trainer | 0 of 1: 0%" in text
    assert "Trials of 1 were ended from outside" in text
    assert "(`one-operator-off`)" in text
    assert "Trials of" not in page(results, Path("x"))


def test_an_unknown_defect_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is run."""
    with pytest.raises(SystemExit) as ended:
        main(["run", "--out", str(tmp_path), "--only", "no-such-defect"])
    assert ended.value.code == 2
    assert "no such defect: no-such-defect" in capsys.readouterr().err


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """The newest committed results."""
    assert RESULTS, "no committed results"
    content: dict[str, Any] = json.loads(RESULTS[-1].read_text())
    return content


def test_the_committed_pages_are_what_the_results_say(results: dict[str, Any]) -> None:
    """Nobody typed a number."""
    folder = RESULTS[-1].parent
    assert (folder / "compared.md").read_text() == table(results)
    here = folder.relative_to(ROOT)
    assert (ROOT / "docs" / "compared.md").read_text() == page(results, here)


def test_the_page_begins_with_what_it_does_not_show(results: dict[str, Any]) -> None:
    """As every report here."""
    assert page(results, Path("x")).startswith("**Not shown:**")
    assert table(results).startswith("**Not shown:**")


def test_what_others_catch_and_ours_do_not_is_shown(results: dict[str, Any]) -> None:
    """A defect that only our run missed gets a row with who caught it."""
    chosen = next(e for e in results["defects"] if e["findings"]["liger"]["outcome"] == "caught")
    survivor = {**chosen, "ours": {"outcome": "survived", "by": "F-1", "seconds": 1.0}}
    text = page({**results, "defects": [survivor]}, Path("x"))
    part = text.partition("## What others catch and our run did not")[2].partition("## ")[0]
    assert f"| `{chosen['id']}` | survived: F-1 | Liger-style" in part
