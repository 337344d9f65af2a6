"""Which bytes an entry rests on, as one SHA-256.

A row is stale as soon as a file that its entry depends on has changed: its contract, the
configurations, the falsifier's module, the subject's adapter, the defect's file, and whatever
those import within the suite's own packages. Files are hashed as bytes; nothing of git is needed,
and imports are only read to find out which files count.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from aprverify.plan import Entry
from aprverify.planting import Defect
from aprverify.suite import Suite

Named = tuple[str, Path]


def source_id(suite: Suite, entry: Entry, subject: str, defects: Mapping[str, Defect]) -> str:
    """SHA-256 over (path, SHA-256 of bytes) of the files that `entry` depends on, in path order.

    `subject` is the subject's ``module:attribute``; the files of its own package count too.
    """
    subject_module = subject.partition(":")[0]
    roots = _roots(suite, subject_module)
    files = {_named(suite.root, path) for path in _data_files(suite, entry)}
    for module in (f"{suite.package}.{entry.test.module}", subject_module):
        files |= _closure(roots, module)
    if entry.defect is not None and entry.defect in defects:
        path = defects[entry.defect].path.relative_to(suite.root).with_suffix("")
        files |= _closure(roots, ".".join(path.parts))
    return digest_files(frozenset(files))


def current_source_ids(
    suite: Suite, entries: Iterable[Entry], subject: str, defects: Mapping[str, Defect]
) -> dict[str, str]:
    """The source id of every entry's key, as the files stand now."""
    return {e.key: source_id(suite, e, subject, defects) for e in entries}


def package_sha256(folder: Path) -> str:
    """One digest over every Python file of a package."""
    return digest_files(frozenset(_named(folder.parent, path) for path in folder.rglob("*.py")))


@cache
def digest_files(files: frozenset[Named]) -> str:
    """SHA-256 over the sorted lines ``name, NUL, hex SHA-256 of the bytes, newline``."""
    digest = hashlib.sha256()
    for name, path in sorted(files):
        digest.update(f"{name}\0{_file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _named(root: Path, path: Path) -> Named:
    return path.relative_to(root).as_posix(), path


def _data_files(suite: Suite, entry: Entry) -> set[Path]:
    files = {entry.contract.path, suite.configurations}
    for kind, _, name in (need.partition(":") for need in entry.case.requires):
        if kind == "asset":
            files.add(suite.assets_file)
        elif kind == "file":
            files.add(suite.root / name)
    return files


def _roots(suite: Suite, subject_module: str) -> frozenset[Named]:
    roots = {name: suite.root for name in suite.sources}
    package = subject_module.partition(".")[0]
    if package not in roots:
        spec = find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            roots[package] = Path(next(iter(spec.submodule_search_locations))).parent
        elif spec is not None and spec.origin is not None:
            roots[package] = Path(spec.origin).parent
    return frozenset(roots.items())


@cache
def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _closure(roots: frozenset[Named], module: str) -> frozenset[Named]:
    seen: set[str] = set()
    files: set[Named] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += [name.rpartition(".")[0]] if "." in name else []
        found = _module_file(dict(roots), name)
        if found is not None:
            files.add(found)
            waiting += _imports(found[1], name)
    return frozenset(files)


def _module_file(roots: dict[str, Path], name: str) -> Named | None:
    parts = name.split(".")
    root = roots.get(parts[0])
    if root is None:
        return None
    base = root.joinpath(*parts)
    for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if path.is_file():
            return _named(root, path)
    return None


@cache
def _imports(path: Path, name: str) -> tuple[str, ...]:
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    found: list[str] = []
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ()  # its own bytes count, and it cannot be imported anyway
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            # `from package import module` imports a submodule when there is one of that name.
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(found)
