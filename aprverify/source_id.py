"""Which bytes an entry rests on, as one SHA-256.

A row is stale as soon as a file that its entry depends on has changed: its contract, the
configurations, the falsifier's module, the subject's adapter, the canary, the defect's file, and
whatever those import, or name by a string, within the suite's own package. Of every other package
that the adapter reaches, the trainer's above all, each file counts: a trainer loads parts of itself
by name and starts itself as a command, which no list of imports shows. Packages that are installed
among others, as torch is, are told by their version in the environment and not by their files.

Files are hashed as bytes; nothing of git is needed, and nothing is imported.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from aprverify.plan import Entry
from aprverify.planting import Defect
from aprverify.suite import Suite

Named = tuple[str, Path]

_MODULE = re.compile(r"[a-z_]\w*(\.\w+)+(:\w+(\.\w+)*)?")
"""What may name a module in a string, with or without an attribute of it."""


def source_id(suite: Suite, entry: Entry, subject: str, defects: Mapping[str, Defect]) -> str:
    """SHA-256 over (path, SHA-256 of bytes) of the files that `entry` depends on, in path order.

    `subject` is the subject's ``module:attribute``.
    """
    return digest_files(files_of_entry(suite, entry, subject, defects))


def files_of_entry(
    suite: Suite, entry: Entry, subject: str, defects: Mapping[str, Defect]
) -> frozenset[Named]:
    """The files that `source_id` is a digest of: (path within their root, where they lie)."""
    modules = [f"{suite.package}.{entry.test.module}", subject, suite.canary, suite.on_plant]
    if entry.defect is not None and entry.defect in defects:
        path = defects[entry.defect].path.relative_to(suite.root).with_suffix("")
        modules.append(".".join(path.parts))
    adapter = re.split("[.:]", subject)[0]
    roots = _roots(suite.sources, suite.root, adapter, _folder_of(adapter))
    files = {_named(suite.root, path) for path in _data_files(suite, entry)}
    for module in modules:
        files |= _closure(roots, module.partition(":")[0])
    for package, root in roots:
        if package != suite.package and any(_is_of(package, name) for name, _ in files):
            files |= {_named(root, path) for path in _files_of(package, root)}
    return frozenset(files)


def current_source_ids(
    suite: Suite, entries: Iterable[Entry], subject: str, defects: Mapping[str, Defect]
) -> dict[str, str]:
    """The source id of every entry's key, as the files stand now."""
    # The cases of a test rest on the same files, unless they require others.
    found: dict[object, str] = {}
    ids = {}
    for entry in entries:
        files = (entry.contract.path, entry.test.module, entry.defect, entry.case.requires)
        if files not in found:
            found[files] = source_id(suite, entry, subject, defects)
        ids[entry.key] = found[files]
    return ids


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
    conftests = (suite.root / "conftest.py", suite.falsifiers_dir / "conftest.py")
    return files | {path for path in conftests if path.is_file()}


def _is_of(package: str, name: str) -> bool:
    return name.startswith(f"{package}/") or name == f"{package}.py"


@cache
def _files_of(package: str, root: Path) -> tuple[Path, ...]:
    """Every Python file of a package, or of a module that stands alone."""
    module = (root / package).with_suffix(".py")
    return (module,) if module.is_file() else tuple((root / package).rglob("*.py"))


@cache
def _roots(
    sources: tuple[str, ...], root: Path, adapter: str, home: Path | None
) -> frozenset[Named]:
    """Top-level packages whose files count, with the folders that they are in.

    `adapter` is the package of the subject's adapter, in `home`; what it imports counts too, and
    what that imports, except for what is installed.
    """
    roots = dict.fromkeys(sources, root)
    waiting: list[tuple[str, Path | None]] = [(adapter, home)]
    seen = {*sources, *sys.stdlib_module_names, "aprverify"}
    while waiting:
        package, folder = waiting.pop()
        if package in seen or folder is None:
            continue
        seen.add(package)
        roots[package] = folder
        for path in _files_of(package, folder):
            names = {name.partition(".")[0] for name in _imports(path, package)} - seen - {""}
            waiting += [(name, _working_copy(name)) for name in sorted(names)]
    return frozenset(roots.items())


def _working_copy(package: str) -> Path | None:
    """The folder that a package is in, unless it was installed there."""
    folder = _folder_of(package)
    return None if folder is None or _is_installation(folder) else folder


def _folder_of(package: str) -> Path | None:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    return Path(spec.origin).parent if spec.origin and Path(spec.origin).exists() else None


@cache
def _is_installation(folder: Path) -> bool:
    """Whether packages were installed into `folder`, which leaves their metadata beside them."""
    return any(folder.glob("*.dist-info"))


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
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [node.value.partition(":")[0]] if _MODULE.fullmatch(node.value) else []
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            # `from package import module` imports a submodule when there is one of that name.
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(found)
