"""Source ids: they change with what an entry rests on, and with nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aprverify.contract.lint import load_suite
from aprverify.plan import make_plan
from aprverify.planting import load_defects
from aprverify.source_id import current_source_ids, files_of_entry

from .conftest import Toy, build_toy, contract, falsification, forget_toy

_CLAIM = "FALSIFY-TOY-001[device=cpu]"
_ASSET = "FALSIFY-TOY-002[device=cpu]"
_OTHER = "FALSIFY-TOY-003[device=cpu]"
_TEETH = {d: f"{_CLAIM}!{d}" for d in ("one-more", "one-less")}
_FALSIFIER = """
import toysuite.direct
from toysuite import from_package

def falsify_sum(subject, case, measured):
    from .relative import thing
    command = ["python", "-m", "toysuite.named"]
    measured(x=subject.total([1, 2]))
"""
_PLAIN = "def falsify_asset(subject, case, measured):\n    measured(x=3)\n"
_LEAVES = ("direct", "from_package", "relative", "deep", "unrelated", "named")


@pytest.fixture(autouse=True)
def toy_imports() -> Iterator[None]:
    """Each copy of the suite is imported anew."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    forget_toy()


def _suite(root: Path) -> Toy:
    toy = build_toy(root)
    toy.write({f"toysuite/{leaf}.py": "thing = 1\n" for leaf in _LEAVES})
    toy.write(
        {
            "toysuite/relative.py": "from . import deep\nthing = 1\n",
            "toysuite/falsify_toy.py": _FALSIFIER,
            "toysuite/falsify_asset.py": _PLAIN,
            "toysuite/falsify_other.py": _PLAIN.replace("falsify_asset", "falsify_other"),
            "toysuite/defects/more.py": (toy.root / "toysuite/defects/faults.py")
            .read_text().replace("one-more", "two-more").replace("one-less", "two-less"),
            "toytrainer/unused.py": "",
            "toytrainer/deeper/still.py": "",
        }
    )  # fmt: skip
    toy.write({"toysuite/table.txt": "1 2\n"})
    requires = ["asset:absent", "file:toysuite/table.txt"]
    needs = [{"scale": "full", "matrix": {"device": ["cpu"]}, "requires": requires}]
    two = [{"defect": "two-more"}, {"defect": "two-less"}]
    tests = [
        falsification("FALSIFY-TOY-001", "falsify_toy.falsify_sum"),
        falsification(
            "FALSIFY-TOY-002", "falsify_asset.falsify_asset", cases=needs, counter_examples=two
        ),
    ]
    toy.contract(contract(falsification_tests=tests, invariants=[], gates=[]))
    other = falsification(
        "FALSIFY-TOY-003", "falsify_other.falsify_other", counter_examples=two
    )  # fmt: skip
    body = contract("C-OTHER", falsification_tests=[other], invariants=[], gates=[])
    toy.contract(body, "other.yaml")
    return toy


def _ids(toy: Toy, subject: str = "toysuite.adapter:Toy") -> dict[str, str]:
    sys.path.insert(0, str(toy.root))
    forget_toy()
    loaded = load_suite(toy.suite)
    assert not loaded.problems
    entries = make_plan(loaded.contracts, teeth="declared")
    return current_source_ids(toy.suite, entries, subject, load_defects(toy.suite))


_ALL = {
    *_TEETH.values(), _CLAIM, _ASSET, _OTHER,
    *(f"{key}!{d}" for key in (_ASSET, _OTHER) for d in ("two-more", "two-less")),
}  # fmt: skip
_FIRST = {_CLAIM, *_TEETH.values()}
_SECOND = {_ASSET, f"{_ASSET}!two-more", f"{_ASSET}!two-less"}
_CHANGES: dict[str, set[str]] = {
    "contracts/toy.yaml": _FIRST | _SECOND,
    "contracts/configurations.yaml": _ALL,
    "toysuite/falsify_toy.py": _FIRST,
    "toysuite/direct.py": _FIRST,
    "toysuite/from_package.py": _FIRST,
    "toysuite/relative.py": _FIRST,
    "toysuite/deep.py": _FIRST,
    "toysuite/__init__.py": _ALL,
    "toysuite/adapter.py": _ALL,
    "toytrainer/__init__.py": _ALL,
    "toytrainer/core.py": _ALL,
    "toytrainer/constants.py": _ALL,
    "toysuite/defects/faults.py": set(_TEETH.values()),
    "toysuite/assets.yaml": _SECOND,
    "toysuite/table.txt": _SECOND,
    "toysuite/unrelated.py": set(),
    "toytrainer/unused.py": _ALL,  # it may be loaded by name, or run as a command
    "toytrainer/deeper/still.py": _ALL,
    "toysuite/named.py": _FIRST,
    "toysuite/canary.py": _ALL,
    "toysuite/conftest.py": _ALL,
    "conftest.py": _ALL,
    "toysuite/suite.py": set(),
    "README.md": set(),
}


@pytest.mark.parametrize("changed", _CHANGES)
def test_a_change_makes_stale_what_rests_on_it_and_nothing_else(
    tmp_path: Path, changed: str
) -> None:
    """Two copies of the suite in different folders differ in one comment, and are equal else."""
    before = _suite(tmp_path / "a")
    after = before.copy(tmp_path / "elsewhere" / "b")
    path = after.root / changed
    text = path.read_text() if path.exists() else ""
    path.write_text(f"{text}# a comment\n")
    old, new = _ids(before), _ids(after)
    assert set(old) == set(new) == _ALL
    assert {key for key in _ALL if old[key] != new[key]} == _CHANGES[changed]


def test_ids_need_no_git_and_are_no_path(tmp_path: Path) -> None:
    """Equal in any folder; a SHA-256 each."""
    toy = _suite(tmp_path / "a")
    ids = _ids(toy)
    assert ids == _ids(toy.copy(tmp_path / "b"))
    assert all(len(value) == 64 and int(value, 16) >= 0 for value in ids.values())


@pytest.mark.parametrize("layout", ["module", "package", "namespace"])
def test_the_files_of_another_subjects_package_count(tmp_path: Path, layout: str) -> None:
    """Wherever it is installed, and whether it is a module, a package or a namespace."""
    toy = _suite(tmp_path / "a")
    found = []
    for version in ("1", "2"):
        folder = tmp_path / f"site-{version}"
        module = f"toy_rival_{layout}"
        name = f"{module}.py" if layout == "module" else f"{module}/adapter.py"
        files = {name: f"VERSION = {version}\n"}
        if layout == "package":
            files[f"{module}/__init__.py"] = ""
        Toy(folder).write(files)
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        target = module if layout == "module" else f"{module}.adapter"
        found.append(_ids(toy, f"{target}:Rival"))
    assert all(found[0][key] != found[1][key] for key in _ALL)


_BRIDGED = {
    "checkout/toy_bridge.py": "def core():\n    from toy_checkout import core\n",
    "checkout/toy_checkout/__init__.py": "",
    "checkout/toy_checkout/core.py": "import toylibrary, toy_below, json\n",
    "checkout/toy_checkout/by_name.py": "",
    "checkout/toy_below.py": "",
    "site/toylibrary.py": "VERSION = 1\n",
    "site/toylibrary-1.0.dist-info/METADATA": "",
}


@pytest.mark.parametrize("changed", [name for name in _BRIDGED if name.endswith(".py")])
def test_what_an_adapter_imports_counts_unless_it_is_installed(
    tmp_path: Path, changed: str
) -> None:
    """The trainer may lie in a checkout of its own; a library is told by its version."""
    toy = _suite(tmp_path / "a")
    found = []
    for version in ("old", "new"):
        folder = tmp_path / version
        Toy(folder).write(_BRIDGED)
        if version == "new":
            (folder / changed).write_text(f"{_BRIDGED[changed]}# a comment\n")
        sys.path[:0] = [str(folder / "site"), str(folder / "checkout")]
        importlib.invalidate_caches()
        found.append(_ids(toy, "toy_bridge:Rival"))
    stale = {key for key in _ALL if found[0][key] != found[1][key]}
    assert stale == (set() if changed.startswith("site") else _ALL)


def test_every_file_of_the_bundled_trainer_is_rested_on() -> None:
    """None can change without making something stale; nor can one of the suite's own."""
    from falsifiers.suite import SUITE

    loaded = load_suite(SUITE)
    entries = make_plan(loaded.contracts, teeth="declared")
    defects = load_defects(SUITE)
    each = {(e.test.module, e.defect): e for e in entries}.values()
    files = {
        name
        for target in SUITE.subjects.values()
        for entry in each
        for name, _ in files_of_entry(SUITE, entry, target, defects)
    }
    tracked = {
        path.relative_to(SUITE.root).as_posix()
        for package in SUITE.sources
        for path in (SUITE.root / package).rglob("*.py")
    }
    # Localization names a cause after the fact: no verdict rests on it.
    assert {name for name in tracked - files if "/localization/" not in name} == set()


def test_a_file_that_is_no_python_counts_by_its_bytes(tmp_path: Path) -> None:
    """It cannot be imported, but its entries still need an id to be told broken under."""
    toy = _suite(tmp_path / "a")
    broken = toy.copy(tmp_path / "b")
    broken.write({"toysuite/direct.py": "def (\n"})
    old, new = _ids(toy), _ids(broken)
    assert {key for key in _ALL if old[key] != new[key]} == _FIRST
