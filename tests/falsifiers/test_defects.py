"""Planted defects: declared, documented, in force while planted, and gone without a trace."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import Any

import pytest

import trainer
from aprverify.contract.lint import Loaded
from aprverify.planting import PROTOCOL, SOURCE, Defect, PlantingError, load_defects, planted
from falsifiers import canary
from falsifiers.adapters.bundled import BundledSubject
from falsifiers.suite import SUITE

DEFECTS = load_defects(SUITE)
SOURCES = sorted(name for name, defect in DEFECTS.items() if defect.kind == SOURCE)
PROTOCOLS = sorted(name for name, defect in DEFECTS.items() if defect.kind == PROTOCOL)
_ABSENT = object()


def trainer_modules() -> list[ModuleType]:
    """Every module of the trainer, imported; GPU kernels only where their compiler is."""
    names = [m.name for m in pkgutil.walk_packages(trainer.__path__, "trainer.")]
    unusable = (
        ("trainer.__main__",) if find_spec("triton") else ("trainer.__main__", "trainer.kernels.")
    )
    return [importlib.import_module(name) for name in names if not name.startswith(unusable)]


def snapshot() -> dict[tuple[str, str], Any]:
    """Every attribute of the trainer's modules and classes, by owner and name.

    And every function of the modules that these name, as `dist` for torch.distributed: what the
    trainer calls in them can be patched in its place.
    """
    found: dict[tuple[str, str], Any] = {}
    for module in trainer_modules():
        owners: list[Any] = [module]
        owners += [v for v in vars(module).values() if isinstance(v, type)]
        for owner in owners:
            if owner is module or owner.__module__ == module.__name__:
                label = getattr(owner, "__qualname__", "")
                for name, value in vars(owner).items():
                    if name not in ("__weakref__", "__builtins__"):
                        found[f"{module.__name__}:{label}", name] = value
        for named in [v for v in vars(module).values() if isinstance(v, ModuleType)]:
            for name, value in vars(named).items():
                if type(value) is FunctionType:
                    found[f"{named.__name__}:", name] = value
    return found


def differences(before: dict[Any, Any], after: dict[Any, Any]) -> list[tuple[str, str]]:
    """Attributes that are not the identical object."""
    names = before.keys() | after.keys()
    return sorted(n for n in names if before.get(n, _ABSENT) is not after.get(n, _ABSENT))


@pytest.fixture(scope="module")
def clean_canary() -> str:
    """What the canary measures before any defect."""
    return canary.measure()


def test_every_defect_is_declared_by_a_contract(loaded: Loaded):
    """An idle defect shows nothing: each is a counter-example of some test."""
    tests = [test for contract in loaded.contracts for test in contract.tests]
    declared = {example.defect for test in tests for example in test.counter_examples}
    assert sorted(DEFECTS.keys() - declared) == []


NO_WRAPPER_FITS = {
    "FALSIFY-SHIP-015.optimized": "the subject is built in another process, where no wrapper is"
}


def test_every_test_has_teeth_for_any_trainer(loaded: Loaded):
    """Source defects patch the bundled trainer only, so each test has a protocol defect as well."""
    tests = [test for contract in loaded.contracts for test in contract.tests]
    bare = {
        test.id
        for test in tests
        if PROTOCOL not in {DEFECTS[example.defect].kind for example in test.counter_examples}
    }
    assert bare == NO_WRAPPER_FITS.keys()


def test_two_defects_with_one_id_are_refused(tmp_path, monkeypatch):
    """An id says which defect a row is about."""
    package = tmp_path / "twins" / "defects"
    package.mkdir(parents=True)
    text = (
        "from aprverify.planting import defect\n"
        "@defect('twin', kind='source', imitates='a', symptom='b', hidden='c')\n"
        "def twin(plant): pass\n"
    )
    for name in ("first", "second"):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    suite = replace(SUITE, falsifiers_dir=package.parent, defects_dir=package, package="twins")
    with pytest.raises(PlantingError, match="twin stands also in"):
        load_defects(suite)


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_a_defect_says_what_it_is(name):
    """Where it happened, what goes wrong and why a loss curve hides it, in words."""
    found = DEFECTS[name]
    assert found.kind in (SOURCE, PROTOCOL)
    assert found.plant.__doc__, "a defect says how it is planted"
    for sentence in (found.symptom, found.hidden):
        assert len(sentence.split()) >= 4, sentence
    assert "#" in found.imitates or len(found.imitates.split()) >= 4, found.imitates


def test_importing_defects_imports_no_torch():
    """Collection and lint read every defect: none may cost seconds, or need torch at all."""
    script = (
        "import sys; from falsifiers.suite import SUITE\n"
        "from aprverify.planting import load_defects\n"
        "found = load_defects(SUITE)\n"
        "heavy = {'torch', 'trainer', 'transformers'} & set(sys.modules)\n"
        "print(len(found), sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1) == [str(len(DEFECTS)), "[]\n"]


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_defect_patches_and_is_gone_after(name, clean_canary, tmp_path):
    """Its targets exist and are replaced; afterwards each attribute is the identical object."""
    before = snapshot()
    with planted(SUITE, DEFECTS[name], BundledSubject(), tmp_path / "report") as plant:
        assert differences(before, snapshot()), "nothing of the trainer was patched"
        assert isinstance(plant.subject, BundledSubject), "a source defect leaves the subject alone"
    assert differences(before, snapshot()) == []
    assert canary.measure() == clean_canary


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_defect_wraps_and_patches_nothing(name, tmp_path):
    """It stands before the subject, so that it can stand before anybody's."""
    before = snapshot()
    subject = BundledSubject()
    with planted(SUITE, DEFECTS[name], subject, tmp_path / "report") as plant:
        assert plant.subject is not subject
        assert differences(before, snapshot()) == []


def defect_named(name: str, plant: Callable[[Any], None]) -> Defect:
    """A source defect made up here."""
    return Defect(name, SOURCE, "", "", "", plant, SUITE.defects_dir)


def test_a_defect_without_its_target_says_so(tmp_path):
    """A renamed function must not turn a defect into one that is never in force."""
    missing = defect_named("gone", lambda plant: plant.patch("trainer.loss:NoSuch", lambda x: x))
    with (
        pytest.raises(PlantingError, match=r"gone: nothing to patch at trainer\.loss:NoSuch"),
        planted(SUITE, missing, BundledSubject(), tmp_path / "report"),
    ):
        pass


def test_the_look_for_differences_sees_a_patch_left_behind(monkeypatch):
    """The snapshot is no blind witness: of modules, of classes, and of what the trainer calls."""
    before = snapshot()
    from trainer import gradients
    from trainer.model.rmsnorm import RMSNorm

    monkeypatch.setattr(gradients, "is_usable", FunctionType((lambda: None).__code__, {}))
    monkeypatch.setattr(RMSNorm, "forward", lambda self, x: x)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend: None)
    seen = differences(before, snapshot())
    assert ("torch.distributed:", "init_process_group") in seen
    assert ("trainer.gradients:", "is_usable") in seen
    assert ("trainer.model.rmsnorm:RMSNorm", "forward") in seen


@pytest.mark.parametrize(
    "name",
    ["rmsnorm-eps-hardcoded", "lm-head-norm", "drop-v-bias-one", "eval-moves-a-weight", "ascent"],
)
def test_the_canary_sees_a_defect_in_force(name, clean_canary, tmp_path):
    """Forward, metric, evaluation and update: inside such a defect it measures differently."""
    with planted(SUITE, DEFECTS[name], BundledSubject(), tmp_path / "report"):
        assert canary.measure() != clean_canary
