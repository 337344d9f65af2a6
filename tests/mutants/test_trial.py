"""What a record repeats of a fault's own words."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from aprverify.mutants.trial import anywhere


def test_words_of_a_fault_name_neither_folders_nor_the_environment() -> None:
    """A mutant may print every variable there is, and a record is published."""
    package = Path("/somewhere/else/trainer")
    said = f"E: {package}/loss.py, {tempfile.gettempdir()}/x: {os.environ!r} is no setting"
    assert anywhere(said, package) == "E: trainer/loss.py, TMP/x: environ({…})"
