"""Holds still what judges: one copy of suite, contracts and aprverify, joined with moving trainers.

Copied once and before anything is tested, so that neither a checkout nor somebody who goes on
editing changes the judge half-way. A commit is judged in a folder that holds this copy and the
commit's own trainer in the place of today's, so that source ids speak of the files really run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import aprverify
from aprverify.plan import Entry
from aprverify.source_id import digest_files
from aprverify.suite import Suite

_CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")
_SETTINGS = "[pytest]\n"
"""A settings file of its own keeps pytest from finding one in a folder above."""


@dataclass(frozen=True)
class Frozen:
    """The copy.

    Attributes:
        folder: where it lies.
        suite: what it was taken of.
        moved: the packages that are not in it.
        digest: SHA-256 over names and bytes of its files.
    """

    folder: Path
    suite: Suite
    moved: tuple[str, ...]
    digest: str

    def compose(self, folder: Path) -> None:
        """Begin a folder for one commit; the packages that move are still to come."""
        shutil.copytree(self.folder, folder)

    @property
    def falsifiers(self) -> Path:
        """The folder of falsifiers, relative to the root."""
        return self.suite.falsifiers_dir.relative_to(self.suite.root)


def moved_packages(suite: Suite) -> tuple[str, ...]:
    """The packages of a suite that are the trainer and not its judge."""
    own = suite.package.partition(".")[0]
    return tuple(name for name in suite.sources if name != own)


def freeze(suite: Suite, moved: tuple[str, ...], entries: Iterable[Entry], folder: Path) -> Frozen:
    """Copy everything that judges into a new folder."""
    root = suite.root
    packages = {*suite.sources, suite.package.partition(".")[0]} - set(moved)
    sources = [root / name for name in sorted(packages)] + [suite.contracts_dir]
    sources += [suite.assets_file, root / "conftest.py"]
    needs = {need for entry in entries for need in entry.case.requires}
    sources += [root / need.removeprefix("file:") for need in needs if need.startswith("file:")]
    for source in sources:
        _copy(source, folder / source.relative_to(root))
    _copy(Path(aprverify.__file__).parent, folder / "aprverify")
    (folder / "pytest.ini").write_text(_SETTINGS)
    files = ((p.relative_to(folder).as_posix(), p) for p in folder.rglob("*") if p.is_file())
    return Frozen(folder, suite, moved, digest_files(frozenset(files)))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=_CACHES, dirs_exist_ok=True)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def copy_package(source: Path, target: Path) -> None:
    """The files of a package as they stand, without what Python caches beside them."""
    shutil.copytree(source, target, ignore=_CACHES)


def identity(*parts: object) -> str:
    """One SHA-256 over JSON values."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
