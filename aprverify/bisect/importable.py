"""Whether a commit's trainer can be imported at all, asked in a process of its own.

A falsifier that starts the trainer's command line sees an exit status, and would take a broken
import for a false claim. So the adapter is imported first, every file is parsed, and each module of
the trainer that some import names is imported; scripts that nobody imports are left alone.

    python -P -m aprverify.bisect.importable REPORT ADAPTER PACKAGE …
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path


def faults(root: Path, adapter: str, packages: tuple[str, ...]) -> list[str]:
    """What keeps a subject from being imported, the worst first; packages stand below `root`."""
    found = [fault for name in packages for fault in _foreign(root, name)]
    found += [fault for name in packages for fault in _unreadable(root, name)]
    if found:
        return found
    modules, names = _imported(root, packages)
    found = [f for name in [adapter, *modules] for f in _unimportable(name, packages)]
    return found or [fault for module, name in names for fault in _absent(root, module, name)]


def _foreign(root: Path, package: str) -> Iterator[str]:
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    if str(root / package) not in [str(Path(place).resolve()) for place in places]:
        yield f"{package} would be imported from elsewhere: {places[:1] or 'nowhere'}"


def _unreadable(root: Path, package: str) -> Iterator[str]:
    for path in sorted((root / package).rglob("*.py")):
        try:
            ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            yield f"{path.relative_to(root)}: {type(error).__name__}: {error}"


def _unimportable(module: str, packages: tuple[str, ...]) -> Iterator[str]:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        # What the machine lacks, it lacks at every commit: the entry itself says so if it matters.
        if str(error.name).partition(".")[0] in (*packages, module.partition(".")[0]):
            yield f"{module}: {error}"
    except BaseException as error:
        yield f"{module}: {type(error).__name__}: {error}"


def _absent(root: Path, module: str, name: str) -> Iterator[str]:
    loaded = sys.modules.get(module)
    if loaded and not hasattr(loaded, name) and not _exists(root, f"{module}.{name}"):
        yield f"cannot import name {name!r} from {module}"


def _imported(root: Path, packages: tuple[str, ...]) -> tuple[list[str], list[tuple[str, str]]]:
    """Modules of the packages that import statements in them name, and (module, name) of them."""
    modules: set[str] = set()
    names: set[tuple[str, str]] = set()
    for package in packages:
        for path in (root / package).rglob("*.py"):
            tree = ast.parse(path.read_bytes())
            inside = path.relative_to(root).parent.parts
            optional = {n for t in ast.walk(tree) if _is_optional(t) for n in ast.walk(t)}
            for node in ast.walk(tree):
                needed, taken = _targets(node, inside)
                modules |= {m for m in needed if node not in optional or _exists(root, m)}
                modules |= {".".join(pair) for pair in taken if _exists(root, ".".join(pair))}
                names |= set() if node in optional else {pair for pair in taken if pair[1] != "*"}
    own = {name for name in modules if name.partition(".")[0] in packages}
    found = sorted(name for name in own if not name.endswith("__main__"))
    return found, sorted(pair for pair in names if pair[0] in own)


def _is_optional(node: ast.AST) -> bool:
    """Whether what is imported inside may be missing."""
    checked = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return checked or isinstance(node, ast.Try)


def _exists(root: Path, name: str) -> bool:
    base = root.joinpath(*name.split("."))
    return base.with_name(f"{base.name}.py").is_file() or (base / "__init__.py").is_file()


def _targets(node: ast.AST, inside: tuple[str, ...]) -> tuple[list[str], list[tuple[str, str]]]:
    """Modules that an import needs, and (module, name) of what it takes from them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names], []
    if isinstance(node, ast.ImportFrom):
        above = inside[: len(inside) - node.level + 1] if node.level else ()
        module = ".".join([*above, *([node.module] if node.module else [])])
        return [module], [(module, alias.name) for alias in node.names]
    return [], []


def main() -> None:
    """Write the faults of the packages in the working folder to REPORT, as JSON."""
    _, report, adapter, *packages = sys.argv
    found = faults(Path.cwd().resolve(), adapter, tuple(packages))
    Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
