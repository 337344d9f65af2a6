"""``aprverify mutants`` on a toy suite, from the draw to the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from aprverify.mutants.record import read_record
from tests.conftest import Toy, build_toy, contract, falsification

_ROOT = Path(__file__).resolve().parents[2]
_TRAINER = """\
def total(values):
    found = 0
    for value in values:
        found = found + value
    return found


def doubled(x):
    return x * 2


def idle(x):
    if x > 100:
        return 7
    return x


def unused(x):
    return x - 1


def first(values):
    return values[0]


def endless(x):
    while x > 0:
        x -= 1
    return x
"""
_ADAPTER = """\
import subprocess, sys

class Toy:
    name = "toy"

    def total(self, values):
        from toytrainer import numbers
        return numbers.total(values)

    def idle(self, x):
        from toytrainer import numbers
        return numbers.idle(x) + numbers.endless(2) + numbers.first([0])

    def doubled(self, x):
        program = "from toytrainer import numbers; print(numbers.doubled(%d))" % x
        command = [sys.executable, "-c", program]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
"""
_FALSIFIERS = """\
def falsify_sum(subject, case, measured):
    measured(x=subject.total([1, 2]))

def falsify_idle(subject, case, measured):
    measured(x=subject.idle(3))

def falsify_doubled(subject, case, measured):
    measured(x=subject.doubled(2) - 1)
"""
_SETTINGS: dict[str, Any] = {
    "package": "toytrainer",
    "preload": ["json"],
    "files": ["toytrainer/numbers.py"],
    "left_out": [],
    "calls_left_out": {},
    "triage": [],
}


def _toy(root: Path) -> Toy:
    toy = build_toy(root)
    names = ("sum", "idle", "doubled")
    tests = [
        falsification(
            f"FALSIFY-TOY-00{i}",
            f"falsify_toy.falsify_{name}",
            invariants=["INV-TOY-001"],
            # Defects have no part in this: one that is declared suffices for the linter.
            counter_examples=[{"defect": "one-more"}, {"defect": "one-less"}],
        )
        for i, name in enumerate(names, 1)
    ]
    toy.write(
        {
            "toytrainer/numbers.py": _TRAINER,
            "toysuite/adapter.py": _ADAPTER,
            "toysuite/falsify_toy.py": _FALSIFIERS,
        }
    )
    toy.contract(contract(falsification_tests=tests))
    _settle(toy, [])
    return toy


def _settle(toy: Toy, triage: list[dict[str, Any]]) -> None:
    settings = {**_SETTINGS, "triage": triage}
    toy.write({"toysuite/mutants.yaml": yaml.safe_dump(settings, allow_unicode=True)})


def _mutants(toy: Toy, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join((str(toy.root), str(_ROOT)))
    return subprocess.run(
        [sys.executable, "-m", "aprverify", "--suite", "toy", "mutants", "-n", "1", *words],
        cwd=toy.root, env={**toy.env(), "PYTHONPATH": paths}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def _outcomes(folder: Path) -> dict[str, str]:
    record = read_record(folder)
    return {" ".join(b["label"].split()): b["outcome"] for b in record.mutants.values()}


def _ids(toy: Toy, *changes: str) -> list[str]:
    from aprverify.mutants.population import enumerate_mutants
    from aprverify.mutants.settings import read_settings

    population = enumerate_mutants(toy.root, read_settings(toy.suite))
    names = {" ".join(population.label(m).split()): m.id for m in population.by_id.values()}
    return [names[f"toytrainer/numbers.py:{change}"] for change in changes]


_KILLED = "total `found = found + value` → `found = found - value`"
_ELSEWHERE = "doubled `return x * 2` → `return x - 2`"
_SURVIVOR = "idle `if x > 100:` → `if x > 101:`"
_CRASHED = "first `return values[0]` → `return values[ 1]`"
_UNREACHED = "unused `return x - 1` → `return x + 1`"


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, subprocess.CompletedProcess[str]]:
    """A toy and the run of one mutant of each kind."""
    toy = _toy(tmp_path_factory.mktemp("mutants") / "project")
    names = _ids(toy, _KILLED, _ELSEWHERE, _UNREACHED, _SURVIVOR, _CRASHED)
    words = [word for name in names for word in ("--mutant", name)]
    return toy, _mutants(toy, *words, "--controls", "1", "--run-dir", "run")


def test_each_mutant_ends_as_it_should(
    tried: tuple[Toy, subprocess.CompletedProcess[str]],
) -> None:
    """In this process and in one that is started; what nobody executes is not tried."""
    toy, done = tried
    assert done.returncode == 3, done.stderr
    assert {k.partition(":")[2]: v for k, v in _outcomes(toy.root / "run").items()} == {
        _KILLED: "killed",
        _ELSEWHERE: "killed",
        _UNREACHED: "unreached",
        _SURVIVOR: "survived",
        _CRASHED: "crashed",
    }
    record = read_record(toy.root / "run")
    by = {body["function"]: body["by"] for body in record.mutants.values()}
    assert by["total"]["entry"].startswith("FALSIFY-TOY-001[")
    assert by["doubled"]["entry"].startswith("FALSIFY-TOY-003[")
    assert "observed -3" in by["total"]["detail"]
    assert [body["outcome"] for body in record.controls] == ["survived"]
    assert record.controls[0]["tried"] == 3 and record.controls[0]["served"] == 2


def test_nothing_is_written_over_the_tree(
    tried: tuple[Toy, subprocess.CompletedProcess[str]],
) -> None:
    """Nor into a cache of compiled code that a later run would load."""
    toy, _ = tried
    assert (toy.root / "toytrainer/numbers.py").read_text() == _TRAINER
    done = toy.process("-c", "from toytrainer import numbers; print(numbers.total([1, 2]))")
    assert done.stdout == "3\n"


def test_the_report_begins_with_what_it_does_not_show(
    tried: tuple[Toy, subprocess.CompletedProcess[str]],
) -> None:
    """And counts what the record holds."""
    toy, _ = tried
    text = (toy.root / "run/report.md").read_text()
    assert text.startswith("This does not show")
    assert "**3/5 = 60.0% (23.1% … 88.2%)**" in text
    assert "2 mutants alive: 2 untriaged." in text
    assert "named and not drawn" in text


def test_survivors_that_are_argued_for_end_well(
    tried: tuple[Toy, subprocess.CompletedProcess[str]],
) -> None:
    """The triage is read anew for each report; an open gap is told by the exit status."""
    toy, _ = tried
    alive = _ids(toy, _UNREACHED, _SURVIVOR)
    labels = {name: body["label"] for name, body in _bodies(toy).items()}
    said = {name: labels[name] for name in alive}
    for kind, status in (("equivalent", 0), ("open", 3)):
        _settle(toy, [{kind: "nobody asks for more than three", "mutants": said}])
        assert _mutants(toy, "--report", "run").returncode == status
    _settle(toy, [])


@pytest.mark.parametrize(
    ("triage", "told"),
    [
        ([{"open": "x", "mutants": {"0123456789": "?"}}], "the sources have no such mutant"),
        ([{"claim": "FALSIFY-TOY-999", "mutants": "SURVIVOR"}], "no test is called FALSIFY-TOY-9"),
        ([{"equivalent": "x", "mutants": "KILLED"}], "and FALSIFY-TOY-001[device=cpu] kills it"),
        ([{"open": "x", "mutants": "MISLABELLED"}], "triage it anew"),
        ([{"open": "x", "mutants": "KILLED"}] * 2, "stands also on line"),
        ([{"open": "x", "claim": "y", "mutants": "KILLED"}], "has too many properties"),
    ],
)
def test_triage_that_does_not_fit_is_an_error(
    tried: tuple[Toy, subprocess.CompletedProcess[str]], triage: list[dict[str, Any]], told: str
) -> None:
    """Each with its line, and status 2: arguments must be about what is there."""
    toy, _ = tried
    bodies = {body["function"]: body for body in _bodies(toy).values()}
    killed, survivor = bodies["total"], bodies["idle"]
    meant = {
        "KILLED": {killed["id"]: killed["label"]},
        "SURVIVOR": {survivor["id"]: survivor["label"]},
        "MISLABELLED": {survivor["id"]: "something else"},
    }
    meaning = [{**p, "mutants": meant.get(str(p["mutants"]), p["mutants"])} for p in triage]
    _settle(toy, meaning)
    done = _mutants(toy, "--report", "run")
    _settle(toy, [])
    assert done.returncode == 2
    assert told in done.stderr and "mutants.yaml:" in done.stderr


def _bodies(toy: Toy) -> dict[str, Any]:
    return dict(read_record(toy.root / "run").mutants)


def test_crashes_and_hangs_are_no_claims() -> None:
    """They are counted apart, and a claim that falls outweighs them."""
    from aprverify.mutants.worker import concluded

    held, crashed = {"entry": "a", "ended": "held"}, {"entry": "b", "ended": "crashed"}
    fell, hung = {"entry": "c", "ended": "falsified"}, {"entry": "d", "ended": "timed_out"}
    assert concluded([held], 1)["outcome"] == "survived"
    assert concluded([], 0)["outcome"] == "unreached"
    assert concluded([held, crashed], 2)["outcome"] == "crashed"
    assert concluded([crashed, fell], 2)["outcome"] == "killed"
    assert concluded([held, hung], 2)["outcome"] == "timed_out"
    assert concluded([{"entry": "e", "ended": "broken"}], 1)["outcome"] == "broken"


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What was tried is not tried again; another draw is refused."""
    toy = _toy(tmp_path / "project")
    chosen = _ids(toy, _UNREACHED, _KILLED, _ELSEWHERE, _SURVIVOR)
    named = [word for name in chosen for word in ("--mutant", name)]
    draw = [*named, "--seed", "5", "--controls", "0", "--run-dir", "run"]
    assert _mutants(toy, *draw, "--budget", "0.001").returncode == 4  # there was no time for one
    done = _mutants(toy, *draw, "--resume")
    assert done.returncode == 3, done.stderr
    assert "of 4:" in done.stderr and "watched" not in done.stderr
    record = toy.root / "run/mutants.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["type"] != "footer"]
    record.write_text("".join(kept[:-2]) + kept[-2][:20])  # ended while it wrote
    assert _mutants(toy, *draw).returncode == 2  # the folder exists
    done = _mutants(toy, *draw, "--resume")
    assert done.returncode == 3, done.stderr
    assert "of 2:" in done.stderr
    assert len(read_record(toy.root / "run").mutants) == 4
    refused = _mutants(toy, *named, "--seed", "6", *draw[-4:], "--resume")
    assert refused.returncode == 2
    assert "seed was another when the run began" in refused.stderr


def test_a_record_of_other_files_says_so(
    tried: tuple[Toy, subprocess.CompletedProcess[str]],
) -> None:
    """Its triage may fit, and its outcomes are of another trainer."""
    toy, _ = tried
    other = toy.root / "toytrainer/constants.py"
    before = other.read_text()
    assert "other files" not in _mutants(toy, "--report", "run").stderr
    other.write_text(before + "# another\n")
    told = _mutants(toy, "--report", "run").stderr
    other.write_text(before)
    assert "it is about other files than those of today" in told


def test_a_control_that_falls_makes_the_run_worthless(
    tried: tuple[Toy, subprocess.CompletedProcess[str]],
) -> None:
    """A falsifier that falls without a mutant would have killed anything."""
    toy, _ = tried
    copy = toy.root / "fallen"
    copy.mkdir()
    text = (toy.root / "run/mutants.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for body in lines:
        if body["type"] == "control":
            body["outcome"] = "killed"
    (copy / "mutants.jsonl").write_text("".join(json.dumps(body) + "\n" for body in lines))
    assert _mutants(toy, "--report", "fallen").returncode == 4
    assert "A CONTROL FELL" in (copy / "report.md").read_text()
