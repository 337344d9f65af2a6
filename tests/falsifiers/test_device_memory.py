"""What a worker keeps on the GPU between entries: little is left alone, much is given back."""

from __future__ import annotations

import pytest
import torch

from falsifiers.device_memory import KEPT_BYTES, give_back


class _Cyclic:
    def __init__(self, freed: list[str]) -> None:
        self.itself = self
        self.freed = freed

    def __del__(self) -> None:
        self.freed.append("collected")


@pytest.mark.parametrize(
    ("started", "reserved", "expected"),
    [
        (True, KEPT_BYTES + 1, ["collected", "emptied"]),
        (True, KEPT_BYTES, []),
        (False, KEPT_BYTES + 1, []),
    ],
)
def test_memory_goes_back_where_there_is_much(
    monkeypatch: pytest.MonkeyPatch, started: bool, reserved: int, expected: list[str]
) -> None:
    """Cycles are collected first: what they hold cannot be returned before."""
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: reserved)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    _Cyclic(done)
    give_back()
    assert done == expected
