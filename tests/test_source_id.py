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
from aprverify.source_id import current_source_ids

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
    measured(x=subject.total([1, 2]))
"""
_PLAIN = "def falsify_asset(subject, case, measured):\n    measured(x=3)\n"
_LEAVES = ("direct", "from_package", "relative", "deep", "unrelated")


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
    "toytrainer/unused.py": set(),
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


def test_a_file_that_is_no_python_counts_by_its_bytes(tmp_path: Path) -> None:
    """It cannot be imported, but its entries still need an id to be told broken under."""
    toy = _suite(tmp_path / "a")
    broken = toy.copy(tmp_path / "b")
    broken.write({"toysuite/direct.py": "def (\n"})
    old, new = _ids(toy), _ids(broken)
    assert {key for key in _ALL if old[key] != new[key]} == _FIRST
