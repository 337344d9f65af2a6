"""campaign.jsonl: what was evaluated, a line a lot, only ever appended to.

The first line and every later `session` line say who goes on where; `test` lines what is claimed;
`lot` lines what some seeds of one case came to; an `end` line why a session ended. Each line
carries the SHA-256 of the one before it: a line that was changed, dropped or moved afterwards
breaks the chain. The chain finds accidents, not forgers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonschema.exceptions import best_match

from aprverify.contract import schema
from aprverify.evidence.refusals import (
    BrokenChain,
    DamagedLine,
    EmptyRun,
    MissingRun,
    SchemaViolation,
)
from aprverify.evidence.saving import naming
from aprverify.evidence.values import canonical_json, encode

CAMPAIGN_FILE = "campaign.jsonl"
CAMPAIGN_SCHEMA = "aprverify-campaign/1"
Line = dict[str, Any]


def read_lines(path: Path) -> list[Line]:
    """Every line of a campaign, in a folder or a campaign.jsonl.

    Raises:
        EvidenceRefused: there is none, it was cut off or changed, or is of another form.
    """
    file = path / CAMPAIGN_FILE if path.is_dir() else path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise MissingRun(file, None, f"cannot be read: {error.strerror}") from None
    if not data:
        raise EmptyRun(file, None, "the file is empty")
    lines = data.split(b"\n")
    if lines.pop() != b"":
        what = "the last line was cut off; `aprverify campaign --resume` drops it and goes on"
        raise DamagedLine(file, len(lines) + 1, what)
    return list(_checked(file, lines))


class Journal:
    """Appends to a campaign's file.

    Raises:
        FileExistsError: a new campaign where there is one.
        EvidenceRefused: one to go on with that is damaged.
        OSError: a line could not be written; it names the file.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self._path = folder / CAMPAIGN_FILE
        self.before: list[Line] = []
        self._previous = ""
        if resume:
            self._take_up()
        else:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab" if resume else "xb")

    def _take_up(self) -> None:
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:  # a session that was killed while it wrote
            self._path.write_bytes(whole)
        self.before = read_lines(self._path)
        self._previous = hashlib.sha256(whole.split(b"\n")[-2]).hexdigest()

    def line(self, kind: str, body: Mapping[str, Any]) -> None:
        """One more line; non-finite floats as floats."""
        record = {"type": kind, "prev": self._previous, **encode(dict(body))}
        data = canonical_json(record).encode()
        with naming(self._path):
            self._file.write(data + b"\n")
            self._file.flush()
        self._previous = hashlib.sha256(data).hexdigest()

    def close(self) -> None:
        """Close the file."""
        with naming(self._path):
            self._file.close()


def _checked(file: Path, lines: list[bytes]) -> list[Line]:
    previous, found = "", []
    validator = schema.validator("campaign")
    for number, line in enumerate(lines, start=1):
        try:
            body = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DamagedLine(file, number, f"no JSON: {error}") from None
        fault = best_match(validator.iter_errors(body))
        if fault is not None:
            raise SchemaViolation(file, number, f"{fault.json_path}: {fault.message[:200]}")
        if number == 1 and body["type"] != "session":
            raise SchemaViolation(file, number, "a campaign begins with a session line")
        if body["prev"] != previous:
            raise BrokenChain(file, number, "prev is not the hash of the line before it")
        previous = hashlib.sha256(line).hexdigest()
        found.append(body)
    return found
