"""Planting: what is patched comes back exactly, in this process and in those that it starts."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aprverify.planting import (
    SOURCE,
    Defect,
    Plant,
    PlantingError,
    launch_command,
    load_defect,
    load_defects,
    planted,
)

from .conftest import Toy


def _plant(act: Callable[[Plant], None] = lambda plant: None) -> Plant:
    return Plant(Defect("toy", SOURCE, "nothing", "none", "no", act, Path(__file__)))


@pytest.fixture
def core(importable: Toy) -> Any:
    """The toy trainer's module."""
    return importlib.import_module("toytrainer.core")


@pytest.mark.parametrize(
    "target",
    ["total", "LEFT", "constants.ZERO", "Adder.add", "Adder.named", "Child.add", "Child.named"],
)
def test_leaving_puts_back_the_very_object(core: Any, target: str) -> None:
    """Functions, constants, static and class methods; what was inherited is inherited again."""
    *path, name = target.split(".")
    owner = core
    for attribute in path:
        owner = getattr(owner, attribute)
    before = vars(owner).get(name, "inherited")
    plant = _plant()
    plant.patch(f"toytrainer.core:{target}", lambda original: "first")
    plant.patch(f"toytrainer.core:{target}", lambda original: "second")
    assert getattr(owner, name) == "second"
    plant.leave()
    after = vars(owner).get(name, "inherited")
    assert after is before


def test_patches_are_undone_last_first(core: Any) -> None:
    """A patch of a patched thing sees the patch, and undoing passes through it."""
    plant = _plant()
    plant.patch("toytrainer.core:total", lambda total: lambda values: total(values) + 1)
    plant.patch("toytrainer.core:total", lambda total: lambda values: total(values) * 2)
    assert core.total([1, 2]) == 8
    plant.leave()
    assert core.total([1, 2]) == 3


def test_a_patched_static_or_class_method_is_called_as_before(core: Any) -> None:
    """Through the class and through an instance, without a surplus `self`."""
    plant = _plant()
    plant.patch("toytrainer.core:Adder.add", lambda add: lambda a, b: add(a, b) + 1)
    plant.patch("toytrainer.core:Child.named", lambda named: lambda: named().upper())
    assert (core.Adder.add(1, 2), core.Adder().add(1, 2), core.Child().add(1, 2)) == (4, 4, 4)
    assert (core.Child.named(), core.Child().named(), core.Adder.named()) == (
        "CHILD",
        "CHILD",
        "Adder",
    )
    plant.leave()
    assert (core.Adder().add(1, 2), core.Child.named()) == (3, "Child")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("toytrainer.nowhere:x", "nothing to patch at toytrainer.nowhere:x"),
        ("toytrainer.core:nowhere", "nothing to patch at toytrainer.core:nowhere"),
        ("toytrainer.core:Adder.nowhere.x", "nothing to patch at"),
        ("toytrainer.core", "nothing to patch at toytrainer.core"),
        ("toytrainer.core:total.__call__.x", "nothing to patch at"),
        ("builtins:int.real", "builtins:int.real cannot be replaced"),
    ],
)
def test_nothing_to_patch_is_one_clear_error(core: Any, target: str, words: str) -> None:
    """The defect and its target are named, and nothing stays patched."""
    plant = _plant()
    with pytest.raises(PlantingError, match=r"^toy: ") as refused:
        plant.patch(target, lambda original: None)
    assert words in str(refused.value)
    plant.leave()


def test_a_defect_is_left_also_when_planting_or_running_it_fails(
    importable: Toy, core: Any, tmp_path: Path
) -> None:
    """Half a defect is none."""

    def half(plant: Plant) -> None:
        plant.patch("toytrainer.core:total", lambda total: None)
        plant.patch("toytrainer.core:nowhere", lambda nothing: None)

    clean = core.total
    fault = _plant(half).defect
    with pytest.raises(PlantingError), planted(importable.suite, fault, None, tmp_path / "effects"):
        pass
    assert core.total is clean
    good = load_defects(importable.suite)["one-less"]
    with (
        pytest.raises(ZeroDivisionError),
        planted(importable.suite, good, None, tmp_path / "effects"),
    ):
        assert core.total is not clean
        raise ZeroDivisionError
    assert core.total is clean


def test_two_defects_of_one_id_are_refused(importable: Toy) -> None:
    """A contract could not say which it means."""
    faults = importable.root / "toysuite/defects/faults.py"
    importable.write({"toysuite/defects/more.py": faults.read_text()})
    with pytest.raises(PlantingError, match="stands also in"):
        load_defects(importable.suite)


def test_one_defect_is_loaded_without_the_other_files(importable: Toy) -> None:
    """A process that is started imports its own defect; a broken neighbour is not its business."""
    importable.write({"toysuite/defects/broken.py": "raise RuntimeError"})
    assert load_defect(importable.suite, "faults.py", "one-less").kind == SOURCE
    with pytest.raises(PlantingError, match=r"broken\.py: cannot be imported"):
        load_defects(importable.suite)
    with pytest.raises(PlantingError, match=r"faults\.py: no defect absent"):
        load_defect(importable.suite, "faults.py", "absent")


@pytest.mark.parametrize("flags", [(), ("-O",)], ids=["python", "python -O"])
@pytest.mark.parametrize("defect", ["one-less", "one-more", None])
def test_a_source_defect_reaches_the_processes_that_are_started(
    importable: Toy, tmp_path: Path, defect: str | None, flags: tuple[str, ...]
) -> None:
    """It is planted there before the command runs, and its effects come back, also when the command
    ends by SystemExit. A protocol defect, which lives in this process, does not travel."""
    effects = tmp_path / "effects.jsonl"
    reached = 0
    if defect is None:
        done = _run(importable, launch_command("toytrainer", "--flag", "a b", flags=flags))
    else:
        fault = load_defects(importable.suite)[defect]
        with planted(importable.suite, fault, None, effects) as plant:
            command = launch_command("toytrainer", "--flag", "a b", flags=flags)
            done = _run(importable, command)
            plant.collect(effects)
        reached = plant.reached
        assert plant.changed == reached
    travels = defect == "one-less"
    debug = not flags
    assert done.stdout == f"total {2 if travels else 3} ['--flag', 'a b'] {debug}\n"
    assert done.returncode == 5
    assert reached == (1 if travels else 0)


def _run(toy: Toy, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=toy.root, env=toy.env(), capture_output=True, text=True, check=False
    )


def test_effects_of_several_processes_add_up(tmp_path: Path) -> None:
    """Each appends a line."""
    path = tmp_path / "effects.jsonl"
    for changed in (True, False):
        plant = _plant()
        plant.effect(changed)
        plant.report(path)
    parent = _plant()
    parent.collect(tmp_path / "nothing")
    assert (parent.reached, parent.changed) == (0, 0)
    parent.collect(path)
    assert (parent.reached, parent.changed) == (2, 1)
    assert [json.loads(line)["reached"] for line in path.read_text().splitlines()] == [1, 1]
