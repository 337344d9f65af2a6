"""A protocol defect goes unplanted only where it passes on every object that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aprverify.matrix.asked import Asked, AskedSubject, passes_on
from aprverify.planting import PROTOCOL, Defect, Plant, defect


class _Instance:
    def step(self) -> int:
        return 1

    def loss(self) -> int:
        return 2


class _Subject:
    name = "clean"

    def build(self, config: dict[str, int], *, seed: int = 0) -> _Instance:
        return _Instance()

    def rate(self) -> int:
        return 3


class _Wrapper:
    """Passes everything on, and what it builds within another wrapper."""

    def __init__(self, inner: Any, part: type[Any] | None = None) -> None:
        self.inner, self.part = inner, part

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def build(self, *arguments: Any, **options: Any) -> Any:
        made = self.inner.build(*arguments, **options)
        return made if self.part is None else self.part(made)


class _Stepping(_Wrapper):
    def step(self) -> int:
        return 0


class _Rated(_Wrapper):
    def rate(self) -> int:
        return 0


class _OtherSeed(_Wrapper):
    def build(self, config: Any, *, seed: int = 0) -> Any:
        return self.inner.build(config, seed=seed + 1)


class _OtherConfiguration(_Wrapper):
    def build(self, config: Any, *, seed: int = 0) -> Any:
        config["width"] += 1
        return self.inner.build(config, seed=seed)


class _BuildsTwice(_Wrapper):
    def build(self, *arguments: Any, **options: Any) -> Any:
        self.inner.build(*arguments, **options)
        return self.inner.build(*arguments, **options)


class _SecondOnly(_Wrapper):
    built = 0

    def build(self, *arguments: Any, **options: Any) -> Any:
        self.built += 1
        made = self.inner.build(*arguments, **options)
        return made if self.built < 2 else _Stepping(made)


class _LooksInside(_Wrapper):
    def build(self, *arguments: Any, **options: Any) -> Any:
        made = self.inner.build(*arguments, **options)
        return made if made.step() > 0 else None


def _defect(wrap: Callable[[Any], Any]) -> Defect:
    declared = defect("some", kind=PROTOCOL, imitates="", symptom="", hidden="")
    return declared(lambda plant: plant.wrap_subject(wrap))


def _asked(run: Callable[[Any], object]) -> Asked:
    asked = Asked()
    run(AskedSubject(_Subject(), asked))
    return asked


def _steps(subject: Any) -> None:
    for seed in range(2):
        assert subject.build({"width": 4}, seed=seed).step() == 1


def _rates(subject: Any) -> None:
    assert (subject.name, subject.rate()) == ("clean", 3)


@pytest.mark.parametrize(
    ("wrap", "run", "passes"),
    [
        (_Wrapper, _steps, True),
        (lambda s: _Wrapper(s, _Wrapper), _steps, True),
        (lambda s: _Wrapper(s, _Stepping), _steps, False),
        (lambda s: _Wrapper(s, _Stepping), _rates, True),
        (_Rated, _rates, False),
        (_Rated, _steps, True),
        (_OtherSeed, _steps, False),
        (_OtherConfiguration, _steps, False),
        (_BuildsTwice, _steps, False),
        (_SecondOnly, _steps, False),
        (_LooksInside, _steps, False),
        (lambda s: None, _steps, False),
    ],
)
def test_only_what_passes_on_everything_goes_unplanted(
    wrap: Callable[[Any], Any], run: Callable[[Any], object], passes: bool
) -> None:
    """Whatever a wrapper is called and made of: it is asked, and its answers are compared."""
    assert passes_on(_defect(wrap), _asked(run)) is passes


def test_a_protocol_defect_that_patches_is_planted() -> None:
    """What it replaces may be called from anywhere."""

    def plant_both(plant: Plant) -> None:
        plant.wrap_subject(_Wrapper)
        plant.patch("tests.test_matrix_asked:_Instance.loss", lambda original: original)

    declared = defect("some", kind=PROTOCOL, imitates="", symptom="", hidden="")
    clean = vars(_Instance)["loss"]
    assert not passes_on(declared(plant_both), _asked(_steps))
    assert vars(_Instance)["loss"] is clean


def test_arguments_are_noted_as_they_were_given() -> None:
    """A falsifier may go on to change its own."""
    asked = Asked()
    config = {"width": 4}
    AskedSubject(_Subject(), asked).build(config).loss()
    config["width"] = 5
    assert asked.calls[0].arguments == ({"width": 4},)
    assert asked.calls[0].names == {"loss"}
