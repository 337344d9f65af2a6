"""Settings of the process: off inside until somebody asks, and put back whatever happens."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from falsifiers.process_settings import WORKSPACE, nothing_reproducible, refuses_undefined_order


def settings() -> tuple[Any, ...]:
    """All that the block may touch."""
    return (
        os.environ.get(WORKSPACE),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )


def test_inside_nothing_is_in_force():
    """Also where it was outside: what is found afterwards was set inside."""
    with nothing_reproducible():
        os.environ[WORKSPACE] = ":16:8"
        torch.use_deterministic_algorithms(True)
        with nothing_reproducible():
            assert settings() == (None, False, False, True)
        assert settings()[:2] == (":16:8", True)


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_afterwards_all_is_as_before(failing, workspace, monkeypatch):
    """Whatever was set inside, and also when the measurement failed."""
    if workspace is None:
        monkeypatch.delenv(WORKSPACE, raising=False)
    else:
        monkeypatch.setenv(WORKSPACE, workspace)
    before = settings()
    try:
        with nothing_reproducible():
            os.environ[WORKSPACE] = ":4096:8"
            torch.use_deterministic_algorithms(True, warn_only=True)
            if failing:
                raise ValueError
    except ValueError:
        assert failing
    assert settings() == before


@pytest.mark.filterwarnings("ignore:put_ does not have a deterministic")
def test_undefined_order_is_refused_only_in_strict_mode():
    """Off and warning it runs; strict it is refused. So the probe tells the three apart."""
    with nothing_reproducible():
        assert not refuses_undefined_order("cpu")
        torch.use_deterministic_algorithms(True, warn_only=True)
        assert not refuses_undefined_order("cpu")
        torch.use_deterministic_algorithms(True)
        assert refuses_undefined_order("cpu")
