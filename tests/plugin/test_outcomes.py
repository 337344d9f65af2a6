"""Every way in which a claim can end, run once alone and once under two workers."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aprverify.evidence.records import Run

from ..conftest import Toy, build_toy, contract, falsification, rows_by_test

_FALSIFIERS = """
import pytest

def falsify_held(subject, case, measured):
    measured(x=subject.total([1, 2]))

def falsify_false(subject, case, measured):
    measured(x=4)

def falsify_swallowed(subject, case, measured):
    try:
        measured(x=4)
    except Exception:
        pass

def falsify_then_crashed(subject, case, measured):
    try:
        measured(x=4)
    finally:
        raise ValueError("afterwards")

def falsify_unable(subject, case, measured):
    measured(x=subject.unable())

def falsify_unable_in_setup(subject, case, measured, helpless):
    measured(x=3)

def falsify_crashed(subject, case, measured):
    raise ValueError("no such thing")

def falsify_exited(subject, case, measured):
    raise SystemExit(0)

def falsify_nothing(subject, case, measured):
    pass

def falsify_twice(subject, case, measured):
    measured(x=3)
    try:
        measured(x=3)
    except Exception:
        pass

def falsify_second_try(subject, case, measured):
    try:
        measured(x="3")
    except Exception:
        measured(x=3)

def falsify_undeclared(subject, case, measured):
    measured(x=3, y=4)

def falsify_missing(subject, case, measured):
    measured()

def falsify_typed(subject, case, measured):
    measured(x=True)

def falsify_many(subject, case, measured):
    import numpy
    measured(x=numpy.zeros(2))

def falsify_scalar(subject, case, measured):
    import numpy
    measured(x=numpy.float64(3))

def falsify_enormous(subject, case, measured):
    measured(x=10 ** 400)

def falsify_skipped(subject, case, measured):
    pytest.skip("not today")

@pytest.mark.skip(reason="not today")
def falsify_skip_mark(subject, case, measured):
    measured(x=3)

@pytest.mark.xfail
def falsify_expected(subject, case, measured):
    measured(x=4)

@pytest.mark.xfail(strict=True)
def falsify_unexpected(subject, case, measured):
    measured(x=3)

def falsify_setup(subject, case, measured, hopeless):
    measured(x=3)

def falsify_teardown(subject, case, measured, messy):
    measured(x=3)

def falsify_false_then_teardown(subject, case, measured, messy):
    measured(x=4)

def falsify_inconclusive(subject, case, measured):
    from aprverify.outcomes import Inconclusive
    raise Inconclusive("too noisy")

def falsify_nan(subject, case, measured):
    measured(x=float("nan"))

def falsify_domain(subject, case, measured):
    measured(x=0)

def falsify_text(subject, case, measured):
    measured(x=b"\\xff".decode(errors="surrogateescape"))

def falsify_needs(subject, case, measured):
    measured(x=3)
"""
_CONFTEST = """
import pytest
from toysuite.adapter import NotSupported

@pytest.fixture
def helpless():
    raise NotSupported("no such ability")

@pytest.fixture
def hopeless():
    raise OSError("no disk")

@pytest.fixture
def messy():
    yield
    raise OSError("cannot clean up")
"""
_TEXT = {"x": {"type": "text", "means": "what was printed"}}


def _claim(expr: str) -> list[dict[str, str]]:
    return [{"id": "sum", "expr": expr, "why": "one and two"}]


def _case(device: str = "cpu", *requires: str) -> list[dict[str, Any]]:
    return [{"scale": "full", "matrix": {"device": [device]}, "requires": list(requires)}]


_EXPECTED: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "held": ("held", None, {}),
    "scalar": ("held", None, {}),
    "unexpected": ("held", None, {}),
    "text": ("held", None, {"measures": _TEXT, "claims": _claim('x contains "udcff"')}),
    "false": ("falsified", None, {}),
    "swallowed": ("falsified", None, {}),
    "then-crashed": ("falsified", None, {}),
    "expected": ("falsified", None, {}),
    "false-then-teardown": ("falsified", None, {}),
    "nan": ("falsified", None, {}),
    "unable": ("not_run", "subject", {}),
    "unable-in-setup": ("not_run", "subject", {}),
    "crashed": ("broken", "error", {}),
    "exited": ("broken", "error", {}),
    "nothing": ("broken", "error", {}),
    "twice": ("broken", "error", {}),
    "second-try": ("broken", "error", {}),
    "undeclared": ("broken", "error", {}),
    "missing": ("broken", "error", {}),
    "typed": ("broken", "error", {}),
    "many": ("broken", "error", {}),
    "enormous": ("broken", "error", {}),
    "skipped": ("broken", "error", {}),
    "domain": ("broken", "error", {"claims": _claim("ln(x) <= 1")}),
    "skip-mark": ("broken", "setup", {}),
    "setup": ("broken", "setup", {}),
    "teardown": ("broken", "setup", {}),
    "inconclusive": ("inconclusive", "inconclusive", {}),
}
_NEEDS = {
    "device": ("device", _case("cuda")),
    "asset": ("asset", _case("cpu", "asset:absent")),
    "package": ("package", _case("cpu", "package:no_such_package")),
}

Recorded = tuple["subprocess.CompletedProcess[str]", Run]


def _suite(root: Path) -> Toy:
    toy = build_toy(root)
    toy.write({"toysuite/falsify_toy.py": _FALSIFIERS, "toysuite/conftest.py": _CONFTEST})
    tests = [
        falsification(
            f"FALSIFY-TOY-001.{name}", f"falsify_toy.falsify_{name.replace('-', '_')}", **changes
        )
        for name, (_, _, changes) in _EXPECTED.items()
    ]
    tests += [
        falsification(f"FALSIFY-TOY-002.{name}", "falsify_toy.falsify_needs", cases=cases)
        for name, (_, cases) in _NEEDS.items()
    ]
    toy.contract(contract(falsification_tests=tests, invariants=[], gates=[]))
    return toy


@pytest.fixture(scope="module", params=[(), ("-n2",)], ids=["alone", "two workers"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """One run of every falsifier."""
    return _suite(tmp_path_factory.mktemp("outcomes") / "project").record("-v", *request.param)


def test_each_ending_has_its_outcome_and_its_reason(recorded: Recorded) -> None:
    """The row says what happened, whatever was raised, swallowed or marked."""
    rows = rows_by_test(recorded[1])
    found = {n: (r.outcome, r.reason.kind if r.reason else None) for n, r in rows.items()}
    wanted = {name: (outcome, kind) for name, (outcome, kind, _) in _EXPECTED.items()}
    wanted |= {name: ("not_run", kind) for name, (kind, _) in _NEEDS.items()}
    assert found == wanted


def test_the_word_that_pytest_prints_is_the_outcome(recorded: Recorded) -> None:
    """A mark for an expected failure does not hide a falsified claim on the terminal."""
    said = recorded[0].stdout
    for name, (outcome, kind, _) in _EXPECTED.items():
        if kind != "setup" and name != "false-then-teardown":
            lines = [x for x in said.splitlines() if f"::falsify_{name.replace('-', '_')}[" in x]
            assert any(outcome.upper().replace("_", " ") in line for line in lines), name
    assert " xfailed" not in said and " xpassed" not in said
    assert recorded[0].returncode == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("undeclared", "not declared: y"),
        ("missing", "not delivered: x"),
        ("twice", "called twice"),
        ("typed", "declared a number, delivered True"),
        ("many", "no single value"),
        ("skipped", "skipped by itself (not today)"),
        ("crashed", "ValueError: no such thing"),
        ("domain", "claim sum: ln of [0]"),
        ("setup", "in setup: OSError: no disk"),
    ],
)
def test_a_broken_entry_says_what_broke_it(recorded: Recorded, name: str, words: str) -> None:
    """The reason names the cause in the words of whoever wrote the falsifier."""
    reason = rows_by_test(recorded[1])[name].reason
    assert reason is not None and words in reason.detail


def test_what_could_not_run_says_how_it_could(recorded: Recorded) -> None:
    """A remedy is a command or an action."""
    rows = rows_by_test(recorded[1])
    remedies = {n: r.reason.remedy for n in _NEEDS if (r := rows[n]).reason is not None}
    assert remedies == {
        "device": "aprverify verify, on a machine with a GPU",
        "asset": "set APRVERIFY_ASSET_ABSENT=PATH",
        "package": "pip install no_such_package",
    }


def test_a_falsified_claim_is_told_with_its_values(recorded: Recorded) -> None:
    """Rule, comparison, values and where to look stand together."""
    said = recorded[0].stdout
    assert "rule: the sum is what it should be" in said
    assert "claim sum: x == 3\n  observed 4, bound == 3" in said
    assert "look at: Count on your fingers." in said


@pytest.mark.parametrize(
    ("identity", "status"),
    [("001.held", 0), ("001.false", 1), ("001.skipped", 1), ("002.device", 5)],
)
def test_the_exit_status_is_zero_only_where_something_held_and_nothing_failed(
    tmp_path: Path, identity: str, status: int
) -> None:
    """A session in which nothing reached a verdict is no success, nor is one with a bare skip."""
    done = _suite(tmp_path / "project").pytest("-k", f"FALSIFY-TOY-{identity}")
    assert done.returncode == status, done.stdout


def test_a_row_names_the_files_it_was_given_by_hash(tmp_path: Path) -> None:
    """Two runs with other weights are told apart, though they name the same asset."""
    toy = _suite(tmp_path / "project")
    toy.write({"weights.bin": "weights"})
    _, run = toy.record("-k", "FALSIFY-TOY-002.asset", "--asset", "absent=weights.bin")
    (row,) = run.rows
    assert row.outcome != "not_run"
    assert row.assets == {"absent": hashlib.sha256(b"weights").hexdigest()}
