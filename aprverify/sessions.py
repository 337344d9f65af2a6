"""What every pytest session over a suite's falsifiers has in common: its options and environment.

Nothing in either comes from somebody's own settings: neither a pytest.ini, nor PYTEST_ADDOPTS, nor
a plugin that happens to be installed has a say in a verdict. A conftest.py in the suite's root or
beside its falsifiers is still read: it is a file of the suite.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_ADDED = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_CURRENT_TEST")
_OF_A_WORKER = "PYTEST_XDIST"
"""Begins variables of an outer session's worker; they are about that session and not this one."""


def session_options(suite: str, root: Path, settings: Mapping[str, str] | None = None) -> list[str]:
    """What a session needs of pytest's settings and plugins it names itself.

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
    options += [f"--rootdir={root}", "--import-mode=importlib", "-p", "no:cacheprovider"]
    # Named as modules, since workers load them so; no other plugin is looked for.
    return [*options, "-p", "aprverify.plugin", "-p", "xdist.plugin"]


def session_environment() -> dict[str, str]:
    """This process's environment without what adds options or plugins to a session."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _ADDED and not name.startswith(_OF_A_WORKER)
    }
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
