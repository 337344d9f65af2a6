"""A toy suite: an installable package with contracts, falsifiers, defects and a trainer in pure
Python, so that aprverify can be tested without torch and without the bundled suite."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Row, Run
from aprverify.suite import Suite

_FILES = {
    "pytest.ini": """\
[pytest]
aprverify_suite = toy
testpaths = toysuite
python_files = falsify_*.py test_*.py
python_functions = falsify_* test_*
addopts = --import-mode=importlib --strict-markers -p no:cacheprovider
""",
    "toysuite.dist-info/METADATA": "Metadata-Version: 2.1\nName: toysuite\nVersion: 1.0\n",
    "toysuite.dist-info/entry_points.txt": "[aprverify.suites]\ntoy = toysuite.suite:SUITE\n",
    "toytrainer/__init__.py": "",
    "toytrainer/core.py": """\
from toytrainer import constants

LEFT = []

def total(values):
    return sum(values) + constants.ZERO

class Adder:
    @staticmethod
    def add(a, b):
        return a + b

    @classmethod
    def named(cls):
        return cls.__name__

class Child(Adder):
    pass
""",
    "toytrainer/constants.py": "ZERO = 0\n",
    "toytrainer/__main__.py": """\
import sys
from toytrainer import core

print("total", core.total([1, 2]), sys.argv[1:], __debug__)
raise SystemExit(5)
""",
    "toysuite/__init__.py": "",
    "toysuite/adapter.py": """\
class NotSupported(Exception):
    pass

class Toy:
    name = "toy"

    def total(self, values):
        from toytrainer import core
        return core.total(values)

    def unable(self):
        raise NotSupported("a toy cannot do this")

class Other(Toy):
    name = "other"
""",
    "toysuite/canary.py": """\
def measure():
    from toytrainer import core
    return f"{core.total([1, 2])} {core.LEFT}"
""",
    "toysuite/suite.py": """\
from pathlib import Path
from aprverify.suite import Suite

_ROOT = Path(__file__).resolve().parent.parent
SUITE = Suite(
    name="toy", root=_ROOT, contracts_dir=_ROOT / "contracts",
    falsifiers_dir=_ROOT / "toysuite", package="toysuite",
    defects_dir=_ROOT / "toysuite" / "defects",
    subjects={"toy": "toysuite.adapter:Toy", "other": "toysuite.adapter:Other"},
    canary="toysuite.canary:measure", on_plant="",
    assets_file=_ROOT / "toysuite" / "assets.yaml", evidence_dir=_ROOT / "evidence",
    sources=("toysuite", "toytrainer"),
)
""",
    "toysuite/assets.yaml": "assets:\n  absent: {kind: file}\n",
    "toysuite/defects/__init__.py": "",
    "toysuite/defects/faults.py": """\
from aprverify.planting import PROTOCOL, SOURCE, defect

def _declare(id, kind=PROTOCOL):
    return defect(id, kind=kind, imitates="nothing", symptom="wrong sums", hidden="it is small")

class _Altered:
    def __init__(self, inner, plant, added, changed=True):
        self.inner, self.plant, self.added, self.changed = inner, plant, added, changed

    def total(self, values):
        self.plant.effect(self.changed)
        return self.inner.total(values) + self.added

    def unable(self):
        return self.inner.unable()

@_declare("one-more")
def one_more(plant):
    plant.wrap_subject(lambda subject: _Altered(subject, plant, 1))

@_declare("one-less", SOURCE)
def one_less(plant):
    def make(total):
        def less(values):
            plant.effect(True)
            return total(values) - 1
        return less
    plant.patch("toytrainer.core:total", make)
""",
    "contracts/configurations.yaml": """\
configurations:
  tiny: {hidden_size: 8, vocab_size: 16, tie: true}
  wide: {hidden_size: 64, vocab_size: 16, tie: false, extra: 3}
""",
}
HELD = """
def falsify_sum(subject, case, measured):
    measured(x=subject.total([1, 2]))
"""


def falsification(identity: str, falsifier: str, **changes: Any) -> dict[str, Any]:
    """A sound falsification test, with `changes`; a change to None drops the field."""
    test = {
        "id": identity,
        "rule": "the sum is what it should be",
        "prediction": "the sum of 1 and 2 is 3",
        "falsifier": falsifier,
        "cases": [{"scale": "full", "matrix": {"device": ["cpu"]}}],
        "measures": {"x": {"unit": "1", "means": "the sum of the values"}},
        "claims": [{"id": "sum", "expr": "x == 3", "why": "one and two"}],
        "counter_examples": [{"defect": "one-more"}, {"defect": "one-less"}],
        "if_fails": "Count on your fingers.",
        **changes,
    }
    return {name: value for name, value in test.items() if value is not None}


def contract(identity: str = "C-TOY", **changes: Any) -> dict[str, Any]:
    """A sound contract with one test of `falsify_toy.falsify_sum`, with `changes`."""
    body = {
        "id": identity,
        "version": "1.0.0",
        "status": "active",
        "title": "Sums are sums",
        "motivation": "somebody once added up wrongly",
        "references": ["Euclid, Elements, book VII"],
        "invariants": [{"id": "INV-TOY-001", "rule": "sums add up"}],
        "gates": [
            {
                "id": "GATE-TOY-001",
                "rule": "sums add up",
                "binds": ["INV-TOY-001"],
                "ship_blocking": True,
            }
        ],
        "falsification_tests": [
            falsification("FALSIFY-TOY-001", "falsify_toy.falsify_sum", invariants=["INV-TOY-001"])
        ],
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


@dataclass
class Toy:
    """The toy suite in a folder of its own."""

    root: Path
    runs: int = 0

    @property
    def suite(self) -> Suite:
        """The suite as aprverify sees it, built here so that nothing need be installed."""
        names = ("contracts", "toysuite")
        contracts, falsifiers = (self.root / name for name in names)
        return Suite(
            name="toy",
            root=self.root,
            contracts_dir=contracts,
            falsifiers_dir=falsifiers,
            package="toysuite",
            defects_dir=falsifiers / "defects",
            subjects={"toy": "toysuite.adapter:Toy"},
            canary="toysuite.canary:measure",
            on_plant="",
            assets_file=falsifiers / "assets.yaml",
            evidence_dir=self.root / "evidence",
            sources=("toysuite", "toytrainer"),
        )

    def write(self, files: Mapping[str, str]) -> None:
        """Write files by path below the root."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def contract(self, body: Mapping[str, Any], name: str = "toy.yaml") -> None:
        """Write a contract."""
        self.write({f"contracts/{name}": yaml.safe_dump(dict(body), sort_keys=False)})

    def process(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of this interpreter in the suite's folder."""
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.root, env=self.env(), capture_output=True, text=True,
            timeout=60, check=False, **options,
        )  # fmt: skip

    def env(self) -> dict[str, str]:
        """The environment without what an outer pytest left in it."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        # Other plugins of this environment have no say here, and take most of the time to load.
        only = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p aprverify -p xdist"}
        return {**clean, **only, "PYTHONPATH": str(self.root), "CUDA_VISIBLE_DEVICES": ""}

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pytest on the suite."""
        return self.process("-m", "pytest", *arguments)

    def record(self, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Run]:
        """Run pytest with evidence; the process and the run as the reader accepts it."""
        self.runs += 1
        folder = self.root / "evidence" / f"run-{self.runs}"
        done = self.pytest("--evidence", str(folder), *arguments)
        assert (folder / "run.jsonl").exists(), done.stdout + done.stderr
        return done, read_run(folder)

    def copy(self, root: Path) -> Toy:
        """The same suite in another folder."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns("__pycache__"))
        return Toy(root)


def build_toy(root: Path) -> Toy:
    """The toy suite with one contract and one falsifier that holds."""
    toy = Toy(root)
    toy.write({**_FILES, "toysuite/falsify_toy.py": HELD})
    toy.contract(contract())
    return toy


def rows_by_test(run: Run) -> dict[str, Row]:
    """Rows by the last word of the test's id, and the defect where there is one."""
    return {
        row.test.rpartition(".")[2] + (f"!{row.defect}" if row.defect else ""): row
        for row in run.rows
    }


def forget_toy() -> None:
    """Let the toy packages be imported anew: each test has them in another folder."""
    for name in [n for n in sys.modules if n.partition(".")[0] in ("toysuite", "toytrainer")]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def importable(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """The toy suite, whose packages this process can import."""
    monkeypatch.syspath_prepend(str(toy.root))
    forget_toy()
    yield toy
    forget_toy()


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """The toy suite in a folder of its own."""
    return build_toy(tmp_path / "project")
