"""Writing: what is on the disk after each line, and what the writer will not write."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest

from aprverify.evidence.saving import write_text
from aprverify.evidence.values import canonical_json, decode, encode
from aprverify.evidence.writer import RunWriter

from .builder import ENVIRONMENT, row, write_run


def test_every_line_names_the_hash_of_the_line_before(tmp_path: Path) -> None:
    """SHA-256 of the bytes without the newline; empty on the first line."""
    lines = write_run(tmp_path / "run.jsonl").read_bytes().splitlines()
    previous = ""
    for number, line in enumerate(lines):
        body = json.loads(line)
        assert (body["seq"], body["prev"]) == (number, previous)
        previous = hashlib.sha256(line).hexdigest()


def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    """The system says only that a device is full."""
    writer = RunWriter(tmp_path / "run.jsonl")
    writer._file.close()
    with (
        Path("/dev/full").open("wb", buffering=0) as writer._file,
        pytest.raises(OSError, match=r"No space left on device: '.*/run\.jsonl'"),
    ):
        writer.contract({"id": "C-A"})
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_text(Path("/dev/full"), "report")


def test_a_line_is_on_the_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    """A run that is killed leaves every row it had."""
    writer = RunWriter(tmp_path / "run.jsonl")
    writer.header({"planned": 1, "started": "2026-01-05T00:00:00Z"})
    writer.row(row())
    assert len((tmp_path / "run.jsonl").read_bytes().splitlines()) == 2


def test_a_second_row_for_an_entry_is_an_error(tmp_path: Path) -> None:
    """And the file keeps the first one only."""
    with RunWriter(tmp_path / "run.jsonl") as writer:
        writer.row(row())
        with pytest.raises(ValueError, match=r"second row for TEST-A\[cpu-f32\]"):
            writer.row(row("falsified"))
    assert len((tmp_path / "run.jsonl").read_bytes().splitlines()) == 1


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    """An existing file is an error, and stays as it is."""
    path = write_run(tmp_path / "run.jsonl")
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        RunWriter(path)
    assert path.read_bytes() == before


def test_an_environment_is_written_once(tmp_path: Path) -> None:
    """The order of its keys does not make it another one; a version does."""
    with RunWriter(tmp_path / "run.jsonl") as writer:
        first = writer.environment(ENVIRONMENT)
        assert writer.environment(dict(reversed(ENVIRONMENT.items()))) == first
        assert writer.environment({**ENVIRONMENT, "python": "3.12.1"}) != first
    assert len((tmp_path / "run.jsonl").read_bytes().splitlines()) == 2


def test_values_come_back_from_json_as_they_were() -> None:
    """Nested non-finite numbers become texts and floats again; nothing else is touched."""
    value = {"a": [math.inf, -math.inf, 1, True, "text"], "b": {"c": 0.1}, "d": (1.5,)}
    back = decode(json.loads(canonical_json(encode(value))))
    assert back == {"a": [math.inf, -math.inf, 1, True, "text"], "b": {"c": 0.1}, "d": [1.5]}
    assert math.isnan(decode(json.loads(canonical_json(encode(math.nan)))))


def test_a_bare_non_finite_number_is_never_written() -> None:
    """JSON has none, and a reader elsewhere would choke on it."""
    with pytest.raises(ValueError):
        canonical_json({"loss": math.nan})
