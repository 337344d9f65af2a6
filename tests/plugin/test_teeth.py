"""Teeth: a defect is caught, survives, or was not in force; and nothing of it is left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aprverify.evidence.records import Run

from ..conftest import HELD, build_toy, contract, falsification, rows_by_test

_FAULTS = """

@_declare("harmless")
def harmless(plant):
    plant.wrap_subject(lambda subject: _Altered(subject, plant, 0))

@_declare("unreached", SOURCE)
def unreached(plant):
    plant.patch("toytrainer.core:Adder.add", lambda add: lambda a, b: plant.effect(True))

@_declare("changeless")
def changeless(plant):
    plant.wrap_subject(lambda subject: _Altered(subject, plant, 1, changed=False))

@_declare("crashing", SOURCE)
def crashing(plant):
    def make(total):
        def crash(values):
            plant.effect(True)
            raise ZeroDivisionError("crashed under the defect")
        return crash
    plant.patch("toytrainer.core:total", make)

@_declare("unpatchable", SOURCE)
def unpatchable(plant):
    plant.patch("toytrainer.core:nowhere", lambda nothing: nothing)

@_declare("sticky")
def sticky(plant):
    from toytrainer import core
    plant.wrap_subject(lambda subject: _Altered(subject, plant, 1))
    core.LEFT.append("something")
"""
_ENDINGS = {
    "one-more": ("caught", None),
    "one-less": ("caught", None),
    "harmless": ("survived", None),
    "unreached": ("broken", "never reached"),
    "changeless": ("broken", "reached 1 times, changed nothing"),
    "crashing": ("broken", "ZeroDivisionError: crashed under the defect"),
    "unpatchable": ("broken", "nothing to patch at toytrainer.core:nowhere"),
}

Recorded = tuple["subprocess.CompletedProcess[str]", Run]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """One run of all teeth; the defect that leaves something behind comes last but one."""
    toy = build_toy(tmp_path_factory.mktemp("teeth") / "project")
    faults = toy.root / "toysuite/defects/faults.py"
    faults.write_text(faults.read_text() + _FAULTS)
    defects = [{"defect": name} for name in _ENDINGS]
    tests = [
        falsification("FALSIFY-TOY-001.all", "falsify_toy.falsify_sum", counter_examples=defects),
        falsification("FALSIFY-TOY-001.after", "falsify_toy.falsify_sum"),
        falsification(
            "FALSIFY-TOY-001.left",
            "falsify_toy.falsify_sum",
            counter_examples=[{"defect": "sticky"}, {"defect": "one-more"}],
        ),
    ]
    toy.contract(contract(falsification_tests=tests, invariants=[], gates=[]))
    return toy.record("--teeth", "declared", "-v")


@pytest.mark.parametrize("defect", _ENDINGS)
def test_a_defect_is_caught_survives_or_was_not_in_force(recorded: Recorded, defect: str) -> None:
    """Only a defect that ran and changed something can be caught or survive."""
    row = rows_by_test(recorded[1])[f"all!{defect}"]
    outcome, words = _ENDINGS[defect]
    assert row.outcome == outcome
    if words is None:
        assert row.plant is not None and row.plant.changed > 0 and row.plant.canary == "same"
    else:
        assert row.reason is not None and words in row.reason.detail


def test_nothing_of_a_defect_is_left_also_when_the_falsifier_crashed(recorded: Recorded) -> None:
    """The claims that come after the crash hold, and their canary is the clean one."""
    rows = rows_by_test(recorded[1])
    crashed = rows["all!crashing"]
    assert crashed.plant is not None and crashed.plant.canary == "same"
    assert rows["after"].outcome == "held"
    assert rows["after!one-more"].outcome == "caught"


def test_what_outlives_its_defect_breaks_the_entry_and_all_that_follow(recorded: Recorded) -> None:
    """A different canary is a broken entry, and whatever runs on that ground is broken too."""
    rows = rows_by_test(recorded[1])
    for name in ("left!sticky", "left!one-more"):
        reason = rows[name].reason
        assert rows[name].outcome == "broken"
        assert reason is not None and "sticky left something behind" in reason.detail


def test_a_survivor_is_told_as_a_falsifier_without_teeth(recorded: Recorded) -> None:
    """The terminal says SURVIVED, and pytest fails."""
    assert recorded[0].returncode == 1
    assert "SURVIVED FALSIFY-TOY-001.all[device=cpu]!harmless" in recorded[0].stdout


def test_source_defects_do_not_run_on_another_subject(tmp_path: Path) -> None:
    """They patch the bundled trainer, so they say nothing of anybody else's."""
    done, run = build_toy(tmp_path / "project").record("--teeth", "declared", "--subject", "other")
    rows = rows_by_test(run)
    less = rows["FALSIFY-TOY-001!one-less"]
    assert less.outcome == "not_run" and less.reason is not None and less.reason.kind == "subject"
    assert rows["FALSIFY-TOY-001!one-more"].outcome == "caught"
    assert done.returncode == 0


def test_a_counter_example_runs_once_a_device_under_the_case_it_names(tmp_path: Path) -> None:
    """`where` chooses the case; without it the first case of each device is taken."""
    toy = build_toy(tmp_path / "project")
    cases = [{"scale": "full", "matrix": {"device": ["cpu", "cuda"], "seed": [0, 1]}}]
    examples = [{"defect": "one-more", "where": {"seed": 1}}, {"defect": "one-less"}]
    test = falsification(
        "FALSIFY-TOY-001", "falsify_toy.falsify_sum", cases=cases, counter_examples=examples
    )
    toy.contract(contract(falsification_tests=[test], invariants=[], gates=[]))
    listed = toy.pytest(
        "--collect-only", "-q", "--teeth", "declared", "-k", "defect:one-more or defect:one-less"
    )
    planted = sorted(
        x.partition("FALSIFY-TOY-001-")[2] for x in listed.stdout.splitlines() if "!" in x
    )
    assert planted == [
        "device=cpu,seed=0!one-less]",
        "device=cpu,seed=1!one-more]",
        "device=cuda,seed=0!one-less]",
        "device=cuda,seed=1!one-more]",
    ]


def test_without_teeth_no_defect_is_planted(tmp_path: Path) -> None:
    """`--teeth none` is the default."""
    toy = build_toy(tmp_path / "project")
    toy.write({"toysuite/falsify_toy.py": HELD})
    _, run = toy.record()
    assert [row.kind for row in run.rows] == ["claim"]
