"""Every check of the reader and of the gate is missed as soon as it is gone.

A check that is taken out must let something through that is refused with it in: else nothing shows
that it works. What is let through is an attack of `tests/attacks`, or a run with one ill.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from aprverify.evidence import accounts, consistency, declarations, reader, status
from aprverify.evidence.claimed import Claimed
from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.gate import judge as judging
from tests.attacks.refused import CASES
from tests.attacks.tampering import Evidence, toy_run
from tests.conftest import Toy, importable, toy
from tests.gate.conftest import CPU_KEY, CUDA_KEY, TEETH_KEY, Call, declare, declared, judge
from tests.gate.evidence import write_run

__all__ = ["declared", "importable", "judge", "toy"]


def _nothing(*_: object, **__: object) -> Iterator[str]:
    return iter(())


CHECKS: dict[str, tuple[object, str]] = {
    f"{owner.__name__.rpartition('.')[2]}.{name}": (owner, name)
    for owner, names in {
        accounts: (
            "missing_entries", "unknown_outcomes", "not_selected", "hidden_interruption",
            "impossible_durations", "unused_environments", "left_out_though_complete",
        ),
        declarations: ("repeated", "unbound", "unreadable", "invisible"),
        consistency: ("_kind", "_reason", "_plant", "_comparison", "_verdict"),
        Claimed: ("faults",),
        reader: ("_undeclared", "_check_schema"),
        reader._Reading: ("_times",),
    }.items()
    for name in names
}  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_that_the_reader_leaves_out_is_missed(
    check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some attack then goes through, or is refused for another reason than the one that fits."""
    original = toy_run(tmp_path / "toy" / RUN_FILE)
    owner, name = CHECKS[check]
    monkeypatch.setattr(owner, name, _nothing)
    assert read_run(original).rows  # honest evidence stays good
    missed = []
    for number, case in enumerate(CASES):
        victim = tmp_path / str(number) / RUN_FILE
        victim.parent.mkdir()
        shutil.copyfile(original, victim)
        case.attack(Evidence(victim))
        try:
            read_run(victim)
            missed.append(case.name)
        except EvidenceRefused as refusal:
            if type(refusal) is not case.refusal or not re.search(case.says, str(refusal)):
                missed.append(case.name)
        except Exception:
            missed.append(case.name)  # what no check stopped ended in a crash
    assert missed


@dataclass(frozen=True)
class Fault:
    """A fault of the gate, and a run with the ill that it overlooks."""

    name: str
    owner: object
    attribute: str
    fault: Callable[..., Any]
    outcomes: dict[str, str]
    edited: bool = False


_GOOD = {"falsified": "held", "survived": "caught", "broken": "held", "not_run": "held"}


def _hopeful(row: Any) -> Any:
    return replace(row, outcome=_GOOD.get(row.outcome, row.outcome), reason=None)


def _hopeful_statuses(*args: Any) -> Any:
    contracts, rows, *rest = args
    return status.gate_statuses(contracts, [_hopeful(row) for row in rows], *rest)


FAULTS = (
    Fault("it takes a contract edited after the run for the one that was run",
          judging._Judging, "_stale", lambda *_: None, {}, edited=True),
    Fault("it believes that a falsified claim holds",
          judging, "gate_statuses", _hopeful_statuses, {CPU_KEY: "falsified"}),
    Fault("it takes a survivor for caught", judging, "gate_statuses", _hopeful_statuses,
          {TEETH_KEY: "survived", TEETH_KEY.replace("cpu", "cuda"): "survived"}),
    Fault("it takes what broke for held",
          judging, "gate_statuses", _hopeful_statuses, {CPU_KEY: "broken"}),
    Fault("it takes what did not run for held",
          judging, "gate_statuses", _hopeful_statuses, {CUDA_KEY: "not_run"}),
    Fault("it calls every gate met",
          judging._Judging, "_code", lambda *_: 0, {CPU_KEY: "falsified"}),
    Fault("it blocks nothing", judging.Decision, "blocks", property(lambda _: False),
          {CPU_KEY: "falsified"}),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_of_the_gate_is_noticed(
    fault: Fault, declared: Toy, judge: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same run that the gate refuses passes with the fault in: its status tells them apart."""
    run = write_run(declared, "a", fault.outcomes)
    if fault.edited:
        declare(declared, if_fails="Count again.")
    assert judge(run) != 0
    monkeypatch.setattr(fault.owner, fault.attribute, fault.fault)
    assert judge(run) == 0
