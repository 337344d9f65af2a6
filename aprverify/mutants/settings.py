"""What is mutated and what is said of survivors: `mutants.yaml` of a suite, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aprverify.contract.document import Document, DocumentError, read_document
from aprverify.contract.schema import fault, validator
from aprverify.suite import Suite

FILE = "mutants.yaml"
"""Beside the falsifiers, since it is part of a suite."""


class MutantsError(Exception):
    """The settings cannot be used as they are."""


@dataclass(frozen=True)
class Triage:
    """What is said of one mutant.

    Attributes:
        kind: ``equivalent``, ``claim`` or ``open``.
        text: the argument, the id of the test that kills it, or what is missing.
        label: what the mutant changes, as whoever thought about it saw it.
        line: where it stands in the settings.
    """

    kind: str
    text: str
    label: str
    line: int


@dataclass(frozen=True)
class Settings:
    """The settings of a suite.

    `left_out` holds the reason by ``FILE`` or ``FILE:FUNCTION``, `calls_left_out` by the name of
    what is called.
    """

    path: Path
    package: str
    preload: Sequence[str]
    files: Sequence[str]
    left_out: Mapping[str, str]
    calls_left_out: Mapping[str, str]
    triage: Mapping[str, Triage]


def read_settings(suite: Suite) -> Settings:
    """The settings of `suite`.

    Raises:
        MutantsError: unreadable, not as the schema says, or nothing matches a file that is named.
    """
    path = suite.falsifiers_dir / FILE
    try:
        document = read_document(path)
    except DocumentError as error:
        raise MutantsError(f"{path}:{error.line}: {error}; {error.fix}") from None
    for found in validator("mutants").iter_errors(document.data):
        line, what, fix = fault(document, found, "mutants")
        raise MutantsError(f"{path}:{line}: {what}; {fix}")
    data = document.data
    return Settings(
        path=path,
        package=data["package"],
        preload=tuple(data["preload"]),
        files=_expanded(suite.root, document),
        left_out={code: part["why"] for part in data["left_out"] for code in part["code"]},
        calls_left_out=data["calls_left_out"],
        triage=_triage(document),
    )


def _expanded(root: Path, document: Document) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for place, pattern in enumerate(document.data["files"]):
        paths = sorted(root.glob(pattern))
        if not paths:
            line = document.line("files", place)
            raise MutantsError(
                f"{document.path}:{line}: no file is called {pattern}; mend the name"
            )
        found |= dict.fromkeys(path.relative_to(root).as_posix() for path in paths)
    return tuple(found)


def _triage(document: Document) -> dict[str, Triage]:
    found: dict[str, Triage] = {}
    for place, part in enumerate(document.data["triage"]):
        kind, text = next((name, value) for name, value in part.items() if name != "mutants")
        mutants: Mapping[str, Any] = part["mutants"]
        for mutant, label in mutants.items():
            line = document.line("triage", place, "mutants", mutant)
            if mutant in found:
                first = found[mutant].line
                where = f"{document.path}:{line}"
                raise MutantsError(f"{where}: {mutant} stands also on line {first}; keep one")
            found[mutant] = Triage(kind, text, label, line)
    return found
