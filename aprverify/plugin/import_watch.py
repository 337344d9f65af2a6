"""Collection stays fast because no falsifier imports torch or a trainer at module level.

An import of torch takes seconds, and collection happens in every worker. While falsifiers are
collected this watch refuses such an import and names the line that asked for it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

HEAVY = frozenset({"torch", "transformers", "tokenizers", "safetensors", "gguf", "jax"})


class HeavyImport(ImportError):
    """A falsifier module imports something heavy at module level."""


class ImportWatch:
    """A finder that finds nothing: it only refuses heavy imports made from `folder`.

    `trainers` are packages of the suite that count as heavy too.
    """

    def __init__(self, folder: Path, trainers: Iterable[str]) -> None:
        self._folder = f"{folder}{os.sep}"
        self._heavy = HEAVY | set(trainers)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse `name` if it is heavy and a file of the watched folder is importing it."""
        if name in self._heavy:
            for frame in reversed(traceback.extract_stack()):
                if frame.filename.startswith(self._folder):
                    raise HeavyImport(
                        f"{frame.filename}:{frame.lineno}: imports {name} while it is being "
                        "collected; import it inside the falsifier"
                    )
        return None

    def start(self) -> None:
        """Begin to watch."""
        sys.meta_path.insert(0, self)

    def stop(self) -> None:
        """Stop watching."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
