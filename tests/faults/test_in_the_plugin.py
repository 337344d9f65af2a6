"""Every fault of the plugin is noticed by those who read what it wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aprverify.evidence import verdict
from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.refusals import EvidenceRefused
from tests.conftest import Toy, build_toy, contract, falsification

from .in_the_plugin import FAULTS, HEAD, Fault

_FALSIFIERS = """
import pytest
from aprverify.outcomes import NotRun

def falsify_sum(subject, case, measured):
    measured(x=subject.total([1, 2]))

def falsify_nan(subject, case, measured):
    measured(x=float("nan"))

def falsify_skipping(subject, case, measured):
    pytest.skip("no time")

def falsify_absent(subject, case, measured):
    raise NotRun("package", "something is not here", "install it")

def falsify_nothing(subject, case, measured):
    pass

def falsify_wrong(subject, case, measured):
    measured(x=subject.total([2, 2]))

def falsify_blind(subject, case, measured):
    subject.total([1, 2])
    measured(x=3)

def falsify_out_of_reach(subject, case, measured):
    measured(x=3)
"""
_NEEDS = {
    "a claim that compares NaN holds": ("falsify_nan", "x == 3"),
    "a skipped item counts as held": ("falsify_skipping", "x == 3"),
    "what could not run counts as held": ("falsify_absent", "x == 3"),
    "a falsifier that measures nothing is held": ("falsify_nothing", "x == 3"),
    "a comparison that fails is overlooked": ("falsify_wrong", "x == 3"),
    "a survivor is called caught": ("falsify_blind", "x == 3"),
    "a defect that was not in force counts as a survivor": ("falsify_out_of_reach", "x == 3"),
}
"""The falsifier that a fault shows on; the others show on an honest one."""


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """A suite with a sound test of two cases and claims, on which a fault can show."""
    return build_toy(tmp_path / "project")


def _record(toy: Toy, fault: Fault | None) -> Path:
    """A run of two workers, made with the fault."""
    function, claim = _NEEDS.get(fault.name if fault else "", ("falsify_sum", "x == 3"))
    cases = [{"scale": "full", "matrix": {"device": ["cpu"], "seed": [0, 1]}}]
    claims = [
        {"id": "sum", "expr": claim, "why": "one and two"},
        {"id": "again", "expr": "x >= 1", "why": "at least one"},
    ]
    tests = [
        falsification(
            f"FALSIFY-TOY-001{part}",
            f"falsify_toy.{name}",
            invariants=["INV-TOY-001"],
            cases=cases,
            claims=claims,
        )
        for part, name in (("", function), (".two", "falsify_sum"))
    ]
    toy.contract(contract(falsification_tests=tests))
    # The contract has a claim of its own for each falsifier; those not bound are no part of it.
    wanted = {function, "falsify_sum"}
    head, *functions = _FALSIFIERS.split("\n\ndef ")
    kept = [f"def {text}" for text in functions if text.partition("(")[0] in wanted]
    toy.write({"toysuite/falsify_toy.py": "\n\n".join([head, *kept])})
    toy.write({"faulty.py": HEAD + (fault.source if fault else "")})
    folder = toy.root / "run"
    arguments = ("-p", "faulty", "-n", "2", "--teeth", "declared", "--evidence", str(folder))
    done = toy.pytest(*arguments)
    assert (folder / RUN_FILE).exists(), done.stdout + done.stderr
    return folder


def test_without_a_fault_the_run_is_good(toy: Toy) -> None:
    """So that what is noticed below is the fault."""
    run = read_run(_record(toy, None))
    assert verdict.exit_code(run, ()) == verdict.OK
    assert run.footer.outcomes == {"held": 4, "caught": 4}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_the_fault_is_noticed(toy: Toy, fault: Fault) -> None:
    """By name: the reader's refusal, or the verdict that the rows left give."""
    folder = _record(toy, fault)
    if fault.refusal is None:
        assert verdict.exit_code(read_run(folder), ()) == fault.code != verdict.OK
        return
    with pytest.raises(EvidenceRefused) as caught:
        read_run(folder)
    assert isinstance(caught.value, fault.refusal), caught.value
    assert re.search(fault.says, str(caught.value)), caught.value


def test_each_fault_is_named_once() -> None:
    """A name that is needed and belongs to no fault would let that fault go untested."""
    names = {fault.name for fault in FAULTS}
    assert len(names) == len(FAULTS) and names >= _NEEDS.keys()
