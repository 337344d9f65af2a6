"""Serves changed source for one module, in this process and in every Python process it starts.

Nothing is written over the tree. Processes that are started find a ``sitecustomize`` on their path,
which calls `enter_process`; it reads what to do from a file that the environment names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

from aprverify.mutants.lines import watch_lines

VARIABLE = "APRVERIFY_MUTANTS"
_SITE = "sitecustomize.py"
_START = '''"""Lets a started process serve what the process that started it serves."""
from aprverify.mutants.serving import enter_process

enter_process()
'''


def begin(folder: Path, order: Mapping[str, Any]) -> None:
    """Do as `order` says here, and in processes started from here on.

    Args:
        folder: an empty folder that outlives them.
        order: ``log`` and ``places``: where to note executed lines (see `lines.new_log`); or
            ``module``, ``path``, ``source``, ``served``: the module to serve, its real file, the
            changed text, and the file that each process leaves a line in.
    """
    path = folder / "order.json"
    path.write_text(json.dumps(order))
    (folder / _SITE).write_text(_START)
    os.environ[VARIABLE] = str(path)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), before)))
    _obey(order)


def enter_process() -> None:
    """Do what the process that started this one does, if it does anything."""
    if path := os.environ.get(VARIABLE):
        _obey(json.loads(Path(path).read_text()))


def _obey(order: Mapping[str, Any]) -> None:
    if "module" in order:
        finder = _Finder(order["module"], order["path"], order["source"], order["served"])
        sys.meta_path.insert(0, finder)
    else:
        watch_lines(Path(order["log"]), order["places"])


class _Finder(MetaPathFinder):
    """Finds one module, and that changed."""

    def __init__(self, module: str, path: str, source: str, served: str) -> None:
        self._module, self._path = module, path
        self._source, self._served = source, served

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The changed module, or None for others to find."""
        if fullname != self._module:
            return None
        loader = _Loader(fullname, self._path, self._source, self._served)
        return spec_from_file_location(fullname, self._path, loader=loader)


class _Loader(SourceFileLoader):
    """Loads the text that it was given, past any cache of compiled code."""

    def __init__(self, fullname: str, path: str, source: str, served: str) -> None:
        super().__init__(fullname, path)
        self._source, self._served = source, served

    def get_code(self, fullname: str) -> CodeType:
        """The code of the changed text."""
        with open(self._served, "a") as stream:
            stream.write(f"{os.getpid()}\n")
        made: CodeType = self.source_to_code(self._source.encode(), self.path)
        return made
