"""The part of a pytest command that every session over a suite's falsifiers has in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def session_options(suite: str, root: Path, settings: Mapping[str, str] | None = None) -> list[str]:
    """What a session needs of pytest's settings it names itself, whatever a pytest.ini says.

    Args:
        suite: name of the installed suite.
        root: the folder that node ids are relative to.
        settings: further ones.
    """
    named = {
        "aprverify_suite": suite,
        "python_files": "falsify_*.py",
        "python_functions": "falsify_*",
        **(settings or {}),
    }
    options = [part for name, value in named.items() for part in ("-o", f"{name}={value}")]
    return [*options, f"--rootdir={root}", "--import-mode=importlib", "-p", "no:cacheprovider"]
