"""`mutants.jsonl`: what was drawn, on what, and how each mutant ended. Written as it happens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aprverify.mutants.settings import MutantsError

FILE = "mutants.jsonl"
Body = Mapping[str, Any]
_SAME = ("schema", "sources", "seed", "size", "named", "patience", "dearest", "controls", "subject")
"""What must be the same for a run to be gone on with."""


@dataclass(frozen=True)
class Record:
    """What a file holds.

    Attributes:
        header: what was to be done, on what.
        falsifiers: the line on them, {} where it did not come to that.
        controls: sources that were served unchanged.
        mutants: by id.
        seconds: of the run and of those that went on with it, without any that was ended.
    """

    header: Body
    falsifiers: Body
    controls: tuple[Body, ...]
    mutants: Mapping[str, Body]
    seconds: float

    @property
    def missing(self) -> int:
        """How many drawn mutants were not tried."""
        return len(self.header["drawn"]) - len(self.mutants)

    def require_alike(self, header: Body) -> None:
        """Refuse to go on with other sources or another draw.

        Raises:
            MutantsError: it would mix two runs.
        """
        for name in _SAME:
            if self.header.get(name) != header[name]:
                raise MutantsError(
                    f"--resume: {name} was another when the run began; begin a new one"
                )


def read_record(folder: Path) -> Record:
    """The record of a run.

    Raises:
        MutantsError: there is none, or a line is not what was written.
    """
    path = folder / FILE
    parts: dict[str, list[Body]] = {name: [] for name in _KINDS}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise MutantsError(f"{path}: {error.strerror}; name the folder of a run") from None
    for number, line in enumerate(lines, 1):
        try:
            body = json.loads(line)
            parts[body["type"]].append(body)
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break  # the run was ended while it wrote
            raise MutantsError(f"{path}:{number}: not a line of such a run; begin anew") from None
    if len(parts["header"]) != 1:
        raise MutantsError(f"{path}: {len(parts['header'])} headers, not one; begin anew")
    return Record(
        header=parts["header"][0],
        falsifiers=next(iter(parts["falsifiers"]), {}),
        controls=tuple(parts["control"]),
        mutants={body["id"]: body for body in parts["mutant"]},
        seconds=sum(body["seconds"] for body in parts["footer"]),
    )


_KINDS = ("header", "falsifiers", "control", "mutant", "footer")


class Writer:
    """Appends lines, each in one piece."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        if self._path.exists():
            # A line that was cut off would spoil the next one.
            text = self._path.read_text(encoding="utf-8")
            self._path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")

    def write(self, kind: str, body: Body) -> None:
        """One more line."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"type": kind, **body}, ensure_ascii=False) + "\n")
