"""How a defect is entered, and how it proves that it is in force.

A defect is a function that receives a `Plant` before the subject is built:

    @defect("eps-hardcoded", kind="source", imitates="…", symptom="…", hidden="…")
    def eps_hardcoded(plant: Plant) -> None:
        plant.patch("trainer.model.rmsnorm:RMSNorm.forward", lambda forward: …)

*Source* defects patch the bundled trainer by ``module:attribute`` strings. *Protocol* defects wrap
the subject, so they work on anybody's trainer. Either way the altered code calls
``plant.effect(changed)`` each time it runs: a defect that was never reached, or never changed an
output, was not in force, and its entry is broken rather than survived.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aprverify.suite import Suite

PROTOCOL, SOURCE = "protocol", "source"


class PlantingError(Exception):
    """A defect that does not exist, or whose target does not."""


@dataclass(frozen=True)
class Defect:
    """A fault to be planted.

    Attributes:
        id: what contracts, reports and ``-k defect:ID`` call it.
        kind: ``protocol`` or ``source``.
        imitates: where it really happened, or what it is modelled on.
        symptom: what goes wrong.
        hidden: why a loss curve does not show it.
        plant: enters it.
        path: the file that it stands in.
    """

    id: str
    kind: str
    imitates: str
    symptom: str
    hidden: str
    plant: Callable[[Plant], None]
    path: Path


@dataclass
class Plant:
    """A defect being entered: what it patched, and whether that had an effect."""

    defect: Defect
    subject: Any = None
    reached: int = 0
    changed: int = 0
    _undo: list[Callable[[], None]] = field(default_factory=list)

    def effect(self, changed: bool) -> None:
        """Record that the altered code ran, and whether its output differed from the clean one."""
        self.reached += 1
        self.changed += bool(changed)

    def patch(self, target: str, make: Callable[[Any], Any]) -> None:
        """Replace ``module:attribute.path`` by ``make(original)`` until the defect is left.

        Raises:
            PlantingError: there is no such module or attribute.
        """
        module_name, _, attributes = target.partition(":")
        *owners, name = attributes.split(".")
        try:
            owner = importlib.import_module(module_name)
            for attribute in owners:
                owner = getattr(owner, attribute)
            original = getattr(owner, name)
            own = vars(owner)
        except (ImportError, AttributeError, TypeError) as error:
            detail = f"{self.defect.id}: nothing to patch at {target}: {error}"
            raise PlantingError(detail) from None
        inherited, raw = name not in own, own.get(name)
        replacement = make(original)
        if isinstance(owner, type):
            replacement = _bound_alike(inspect.getattr_static(owner, name), replacement)
        try:
            setattr(owner, name, replacement)
        except (AttributeError, TypeError) as error:
            detail = f"{self.defect.id}: {target} cannot be replaced: {error}"
            raise PlantingError(detail) from None
        self._undo.append(
            (lambda: delattr(owner, name)) if inherited else (lambda: setattr(owner, name, raw))
        )

    @property
    def patched(self) -> bool:
        """Whether anything is replaced at present."""
        return bool(self._undo)

    def wrap_subject(self, wrap: Callable[[Any], Any]) -> None:
        """Put ``wrap(subject)`` between the falsifier and the subject."""
        self.subject = wrap(self.subject)

    def collect(self, report: Path) -> None:
        """Add the effects that processes started through the launcher have reported."""
        if not report.exists():
            return
        for line in report.read_text().splitlines():
            effects = json.loads(line)
            self.reached += effects["reached"]
            self.changed += effects["changed"]

    def report(self, path: Path) -> None:
        """Append this process's effects to the file that the parent collects."""
        with path.open("a") as stream:
            stream.write(json.dumps({"reached": self.reached, "changed": self.changed}) + "\n")

    def leave(self) -> None:
        """Undo every patch, last first."""
        while self._undo:
            self._undo.pop()()


def _bound_alike(original: Any, replacement: Any) -> Any:
    """`replacement` as a static method where `original` takes no instance either."""
    unbound = (staticmethod, classmethod)
    if isinstance(original, unbound) and not isinstance(replacement, unbound):
        return staticmethod(replacement)  # the bound class method that `make` got has its class
    return replacement


def defect(
    id: str, *, kind: str, imitates: str, symptom: str, hidden: str
) -> Callable[[Callable[[Plant], None]], Defect]:
    """Declare the decorated function to be a defect; the module's attribute becomes a `Defect`."""

    def declare(plant: Callable[[Plant], None]) -> Defect:
        path = Path(plant.__code__.co_filename).resolve()
        return Defect(id, kind, imitates, symptom, hidden, plant, path)

    return declare


def load_defects(suite: Suite) -> dict[str, Defect]:
    """Every defect of a suite by id. Importing their modules must not import torch.

    Raises:
        PlantingError: two defects share an id, or a module cannot be imported.
    """
    found: dict[str, Defect] = {}
    for path in sorted(suite.defects_dir.glob("*.py")):
        if path.stem == "__init__":
            continue
        for value in _defects_in(suite, path):
            if found.setdefault(value.id, value) is not value:
                other = found[value.id].path
                raise PlantingError(f"{path}: defect {value.id} stands also in {other}")
    return found


def load_defect(suite: Suite, file: str, id: str) -> Defect:
    """The defect `id` in `file` of the suite's defects; the other files are not imported.

    Raises:
        PlantingError: it is not there, or the module cannot be imported.
    """
    path = suite.defects_dir / file
    for value in _defects_in(suite, path):
        if value.id == id:
            return value
    raise PlantingError(f"{path}: no defect {id}")


def _defects_in(suite: Suite, path: Path) -> Iterator[Defect]:
    folder = ".".join(suite.defects_dir.relative_to(suite.falsifiers_dir).parts)
    try:
        module = importlib.import_module(f"{suite.package}.{folder}.{path.stem}")
    except Exception as error:
        raise PlantingError(f"{path}: cannot be imported: {error!r}") from error
    for value in vars(module).values():
        if isinstance(value, Defect) and value.path == path.resolve():  # none that it imports
            yield value


_active: list[tuple[Suite, Plant, Path]] = []


@contextmanager
def planted(suite: Suite, defect: Defect, subject: Any, report: Path) -> Iterator[Plant]:
    """Enter a defect; ``plant.subject`` is the subject to build from. Leaving removes it.

    `report` is where launched processes write their effects; call ``plant.collect(report)``.
    """
    plant = Plant(defect, subject)
    call_if_named(suite.on_plant)
    _active.append((suite, plant, report))
    try:
        defect.plant(plant)
        yield plant
    finally:
        _active.pop()
        plant.leave()
        call_if_named(suite.on_plant)


def launch_command(module: str, *arguments: str, flags: tuple[str, ...] = ()) -> list[str]:
    """The argv that runs ``python -m module`` under the active source defect, if there is one.

    Protocol defects live between falsifier and subject, so they do not travel into a process.
    `flags` are the interpreter's own, ``-O`` for one.
    """
    python = [sys.executable, *flags, "-m"]
    active = [a for a in _active if a[1].defect.kind == SOURCE]
    if not active:
        return [*python, module, *arguments]
    suite, plant, report = active[-1]
    defect = plant.defect
    launcher = ["aprverify.launch", suite.name, defect.path.name, defect.id, str(report)]
    return [*python, *launcher, module, *arguments]


def call_by_name(target: str) -> Any:
    """Call ``module:function`` without arguments and return its result."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)()


def call_if_named(target: str) -> None:
    """Call an optional ``module:function`` of a suite; "" names none."""
    if target:
        call_by_name(target)
