"""Helpers of the checkpoint falsifiers: they must see what they are there to see."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from falsifiers.apr_container import AprContainer, AprDamaged
from falsifiers.apr_edits import AprParts, resealed, taken_apart, with_footer
from falsifiers.killed_writes import (
    disk_of,
    killed_at_byte,
    killed_before_call,
    recorded_calls,
    syncs_in_order,
)
from falsifiers.refused_files import Tried
from falsifiers.subject import SubjectRefused


def parts() -> AprParts:
    """Two tensors of different sizes."""
    values = np.arange(20, dtype=np.float32)
    return AprParts({"training": {"step": 3}}, {"b": values, "a": values[:6].reshape(2, 3)})


def test_what_is_packed_is_read_by_the_independent_reader(tmp_path):
    """Names, shapes, values and metadata come back, also with the data in reverse."""
    path = tmp_path / "made.apr"
    for reverse in (False, True):
        made = parts()
        made.reverse_data = reverse
        path.write_bytes(made.packed())
        read = taken_apart(path)
        assert AprContainer(path).names == ["a", "b"]
        assert read.metadata == made.metadata
        assert all(np.array_equal(read.tensors[n], made.tensors[n]) for n in ("a", "b"))


def test_only_the_checksum_that_is_mended_matches(tmp_path):
    """A footer made to match leaves a damaged header's own checksum wrong."""
    path = tmp_path / "made.apr"
    damaged = bytearray(parts().packed())
    damaged[6] ^= 0x80
    path.write_bytes(with_footer(bytes(damaged)))
    with pytest.raises(AprDamaged, match="header checksum"):
        AprContainer(path)
    path.write_bytes(resealed(bytes(damaged)))
    assert AprContainer(path).names == ["a", "b"]


def durable(path: Path) -> None:
    """A write as it should be."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(b"x" * 1000)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def test_a_durable_write_is_recognised_and_others_are_not(tmp_path):
    """Bytes synced at their full size, the rename, then the folder; each omission is seen."""
    path = tmp_path / "file"
    calls = recorded_calls(lambda: durable(path))
    assert [call[0] for call in calls] == ["open", "fsync", "os.rename", "fsync"]
    assert syncs_in_order(calls, path, 1000) == (True, True)
    assert syncs_in_order(calls[:3], path, 1000) == (True, False)
    assert syncs_in_order([calls[0], *calls[2:]], path, 1000) == (False, True)
    assert syncs_in_order(calls, path, 1001) == (False, True)
    assert syncs_in_order(calls[:2], path, 1000) == (False, False)


def test_a_kill_happens_where_it_is_meant_to(tmp_path):
    """At the byte, or before the call; a save that never gets there is not killed."""
    path = tmp_path / "file"
    assert killed_at_byte(lambda: path.write_bytes(b"x" * 1000), 700)
    assert path.stat().st_size == 700
    assert not killed_at_byte(lambda: path.write_bytes(b"x" * 100), 700)
    path.unlink()
    assert [killed_before_call(lambda: durable(path), call) for call in range(5)] == [True] * 4 + [
        False
    ]


def test_a_full_disk_ends_with_its_block(tmp_path):
    """Inside there is no room, afterwards there is."""
    path = tmp_path / "file"
    with disk_of(10), pytest.raises(OSError):
        path.write_bytes(b"x" * 11)
    path.write_bytes(b"x" * 11)


def test_a_crash_is_no_refusal():
    """Each attempt is counted once, under what became of it."""

    def refuse() -> None:
        raise SubjectRefused("WEIGHTS", "names nothing")

    tried = Tried().each([("a", int), ("b", refuse), ("b", refuse), ("c", lambda: 1 / 0)])
    assert (tried.count, tried.accepted, len(tried.crashed)) == (4, ["a"], 1)
    assert tried.kinds() == "WEIGHTS"
    assert tried.unnamed({"b": "nothing"}) == []
    assert tried.unnamed({"b": "something"}) == ["b"]
