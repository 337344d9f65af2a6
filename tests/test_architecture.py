"""The arrows of ARCHITECTURE.md, read from the imports, and calls that have no place anywhere."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("aprverify", "falsifiers", "trainer")


def _modules(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found, f"no module below {folders}"
    return found


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, by its full name; relative ones stay inside."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = path.relative_to(ROOT).parts[: -node.level]
            yield ".".join([*parents, node.module or ""])


def _strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _offenders(paths: list[Path], *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in _imports(path)
        if any(name == f or name.startswith(f"{f}.") for f in forbidden)
    ]


def test_aprverify_knows_neither_torch_nor_the_trainer_nor_the_suite() -> None:
    """Its commands work on anybody's suite, and where torch is not installed."""
    heavy = ("torch", "transformers", "trainer", "falsifiers")
    assert _offenders(_modules("aprverify"), *heavy) == []


def test_the_trainer_knows_nothing_of_what_verifies_it() -> None:
    """It has no hooks for its judge."""
    assert _offenders(_modules("trainer"), "aprverify", "falsifiers", "pytest", "tests") == []


def test_the_oracle_imports_numerics_and_itself_only() -> None:
    """A table or a default in common with a trainer would make their shared mistake invisible."""
    allowed = {"torch", "numpy", "gguf", *sys.stdlib_module_names}
    offenders = [
        f"{path.name} imports {name}"
        for path in _modules("falsifiers/reference")
        for name in _imports(path)
        if name.partition(".")[0] not in allowed and not name.startswith("falsifiers.reference")
    ]
    assert offenders == []


def test_only_the_bundled_adapter_imports_the_trainer() -> None:
    """Everything else goes through the protocol, so that it works on other trainers."""
    adapter = ROOT / "falsifiers/adapters/bundled"
    others = [p for p in _modules("falsifiers") if p.parent != adapter]
    assert _offenders(others, "trainer") == []


def test_only_defects_name_the_trainers_modules_by_string() -> None:
    """A source defect patches the trainer from outside; nothing else reaches around the arrows."""
    paths = [path.relative_to(ROOT).with_suffix("") for path in _modules("trainer")]
    names = {".".join(path.parts) for path in paths}
    outside = [p for p in _modules("aprverify", "falsifiers") if p.parent.name != "defects"]
    offenders = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in outside
        for text in _strings(path)
        if text.partition(":")[0] in names
    ]
    assert offenders == []


def _calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_runs_text_or_unpickles_bytes(package: str) -> None:
    """Contracts and weight files are data. `.eval()` of a model is another thing."""
    banned = {
        "eval",
        "exec",
        "compile",
        "__import__",
        "torch.load",
        "yaml.load",
        "yaml.unsafe_load",
    }
    for path in _modules(package):
        assert not banned & set(_calls(path)), path
        assert not _offenders([path], "pickle", "marshal", "shelve", "dill", "cloudpickle"), path


def test_no_module_is_a_drawer() -> None:
    """One idea a file, and a name that says which."""
    drawers = ("utils.py", "util.py", "helpers.py", "misc.py", "common.py")
    assert [p for p in _modules(*PACKAGES, "tests") if p.name in drawers] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_why_it_exists(package: str) -> None:
    """Its first lines are a docstring."""
    silent = [p for p in _modules(package) if not ast.get_docstring(ast.parse(p.read_bytes()))]
    assert silent == []


def test_the_plugin_uses_no_private_part_of_pytest() -> None:
    """Private names move without notice."""
    assert _offenders(_modules("aprverify"), "_pytest") == []
