"""Exports made through a command line: shared where equal, and an error where there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from falsifiers.exports import exported
from falsifiers.subject_parts import Provenance

_COPY = "import shutil, sys; shutil.copyfile(*sys.argv[-3:-1])"


class _Instance:
    """One parameter, which the checkpoint spells out."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.saved = 0

    def parameters(self) -> dict[str, torch.Tensor]:
        """The parameter."""
        return {"w": torch.tensor([self.value])}

    def save_checkpoint(self, path: Path, provenance: Provenance) -> None:
        """Write it as text."""
        self.saved += 1
        path.write_text(str(self.value))


class _Subject:
    """Exports by copying, or not at all."""

    def __init__(self, script: str) -> None:
        self.script = script

    def command(self, *arguments: str) -> list[str]:
        """The script with the arguments of the export."""
        return [sys.executable, "-c", self.script, *arguments]


def export(script: str, instance: _Instance) -> Path:
    """Through the stand-ins."""
    subject: Any = _Subject(script)
    model: Any = instance
    return exported(subject, model, "gguf")


def test_equal_weights_under_one_command_are_exported_once() -> None:
    """A process of seconds is not started twice for the same file."""
    first, second = _Instance(1.0), _Instance(1.0)
    path = export(_COPY, first)
    assert export(_COPY, second) == path
    assert path.read_text() == "1.0"
    assert (first.saved, second.saved) == (1, 0)
    assert not (path.parent / "source.apr").exists(), "gigabytes at full scale"


def test_other_weights_or_another_command_are_exported_anew() -> None:
    """What a defect exports never passes for the clean model's file."""
    paths = {
        export(_COPY, _Instance(2.0)),
        export(_COPY, _Instance(3.0)),
        export(_COPY + "  ", _Instance(2.0)),
    }
    assert len(paths) == 3


def test_a_command_that_fails_says_what_it_said() -> None:
    """Without an export there is nothing to compare, and no verdict."""
    with pytest.raises(RuntimeError, match="exit code 3: no export"):
        export("import sys; sys.exit(3)", _Instance(4.0))
