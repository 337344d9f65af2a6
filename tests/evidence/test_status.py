"""Statuses: each rule of a gate, alone and against its neighbour."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from aprverify.evidence.status import GateStatus, Status, gate_statuses

from .builder import Body, comparison, contract, contracts_and_rows, reason, row

BOTH = {"cpu-f32": "reduced", "cuda-bf16": "full"}
HELD, CAUGHT = row(), row("caught", defect="drop-bias")


def reduced(outcome: str = "held", **changes: Any) -> Body:
    """A row of the reduced case of `BOTH`."""
    return row(outcome, scale="reduced", **changes)


def full(outcome: str = "held", **changes: Any) -> Body:
    """A row of the full case of `BOTH`."""
    return row(outcome, case="cuda-bf16", **changes)


def status_of(
    *rows: Body, declared: Body | None = None, stale: frozenset[str] = frozenset()
) -> GateStatus:
    """The only gate's status."""
    contracts, records = contracts_and_rows(rows, declared or contract())
    (status,) = gate_statuses(contracts, records, stale)
    return status


def test_all_held_and_all_caught_is_discharged() -> None:
    """And nothing needs explaining."""
    status = status_of(HELD, CAUGHT)
    assert (status.status, status.why) == (Status.DISCHARGED, [])
    assert (status.teeth_caught, status.teeth_declared) == (1, 1)
    assert status.ships


def test_no_rows_is_pending() -> None:
    """A gate that nobody tested is not passed."""
    status = status_of()
    assert status.status is Status.PENDING
    assert status.closest is None


def test_a_counter_example_that_was_not_planted_leaves_the_gate_pending() -> None:
    """A pass counts only after a failure was seen; `why` names the defect."""
    status = status_of(HELD)
    assert status.status is Status.PENDING
    assert status.why == ["TEST-A: counter-example drop-bias was not planted"]


def test_one_caught_row_does_not_stand_for_another_defect() -> None:
    """Every declared counter-example needs its own."""
    status = status_of(HELD, CAUGHT, declared=contract(counter_examples=("drop-bias", "eps")))
    assert status.status is Status.PENDING
    assert (status.teeth_caught, status.teeth_declared) == (1, 2)


def test_a_counter_example_caught_in_one_case_is_enough() -> None:
    """Where the other cases' rows did not run."""
    declared = contract({"cpu-f32": "full", "cpu-f64": "full"})
    teeth = row("not_run", case="cpu-f64", defect="drop-bias")
    assert status_of(HELD, row(case="cpu-f64"), CAUGHT, teeth, declared=declared).ships


TWO_TEETH = contract({"cpu-f32": "full", "cuda-bf16": "reduced"}, ("drop-bias", "eps"))


def foreign(**changes: Any) -> Body:
    """A row of `eps`, which patches the source of another trainer."""
    why = reason("subject", "eps patches the source of another trainer")
    return row("not_run", **{"defect": "eps", "reason": why, **changes})


def test_a_counter_example_that_does_not_apply_stands_in_nobodys_way() -> None:
    """Where another one was caught; it is not counted as caught, and `why` names it."""
    status = status_of(HELD, CAUGHT, foreign(), declared=TWO_TEETH)
    assert status.status is Status.DISCHARGED
    assert status.why == ["TEST-A: counter-example eps does not apply to the subject"]
    assert (status.teeth_caught, status.teeth_declared) == (1, 2)


def test_a_test_without_any_caught_defect_is_pending_on_every_subject() -> None:
    """Nobody saw it fail, whatever the reason."""
    declared = contract(counter_examples=("eps",))
    status = status_of(HELD, foreign(), declared=declared)
    assert status.status is Status.PENDING
    (why,) = status.why
    assert why.endswith("eps does not apply to the subject, and no other was caught")


def test_a_machine_without_the_device_does_not_ask_whether_a_defect_applies() -> None:
    """Its row says nothing, for or against; alone it leaves the gate pending."""
    no_device = foreign(case="cuda-bf16", reason=reason())
    assert status_of(HELD, CAUGHT, foreign(), no_device, declared=TWO_TEETH).ships
    assert status_of(HELD, CAUGHT, no_device, declared=TWO_TEETH).status is Status.PENDING


def test_a_missing_asset_excuses_no_counter_example() -> None:
    """It can be had, and then the defect may well be planted."""
    no_asset = foreign(case="cuda-bf16", reason=reason("asset", "not fetched"))
    status = status_of(HELD, CAUGHT, foreign(), no_asset, declared=TWO_TEETH)
    assert status.status is Status.PENDING


def test_what_does_not_apply_is_named_after_what_is_open() -> None:
    """A worse status keeps its own reason first."""
    status = status_of(row("falsified"), CAUGHT, foreign(), declared=TWO_TEETH)
    assert status.status is Status.FALSIFIED
    assert [why.split(": ")[-1] for why in status.why][1:] == [
        "counter-example eps does not apply to the subject"
    ]


def test_a_test_that_promises_no_teeth_needs_none() -> None:
    """Zero of zero."""
    assert status_of(HELD, declared=contract(counter_examples=())).status is Status.DISCHARGED


RANKED = {
    Status.FALSIFIED: row("falsified", case="a"),
    Status.VACUOUS: row("survived", case="b", defect="drop-bias"),
    Status.BROKEN: row("broken", case="c"),
    Status.PENDING: row("not_run", case="d"),
}


@pytest.mark.parametrize("outcome", ["broken", "inconclusive"])
def test_a_claim_without_a_verdict_breaks_the_gate(outcome: str) -> None:
    """Both words, though all other cases held."""
    declared = contract({"cpu-f32": "full", "c": "reduced"})
    assert (
        status_of(HELD, CAUGHT, row(outcome, case="c"), declared=declared).status is Status.BROKEN
    )


def test_broken_teeth_break_the_gate() -> None:
    """A defect that was not in force shows nothing."""
    assert status_of(HELD, row("broken", defect="drop-bias")).status is Status.BROKEN


def test_survived_teeth_outweigh_caught_ones() -> None:
    """One case that cannot fail is one too many."""
    declared = contract({"cpu-f32": "full", "cpu-f64": "full"})
    rows = (HELD, row(case="cpu-f64"), CAUGHT, row("survived", case="cpu-f64", defect="drop-bias"))
    assert status_of(*rows, declared=declared).status is Status.VACUOUS


@pytest.mark.parametrize(
    ("worse", "better"), list(itertools.combinations(sorted(RANKED), 2)), ids=lambda s: s.name
)
def test_the_worst_finding_is_the_status(worse: Status, better: Status) -> None:
    """Every pair of findings, in either order of their rows."""
    declared = contract({case: "full" for case in "abcd"})
    pair = (RANKED[worse], RANKED[better])
    assert status_of(*pair, declared=declared).status is worse
    assert status_of(*reversed(pair), declared=declared).status is worse


def test_statuses_are_ordered_worst_first() -> None:
    """The order that the specification gives."""
    assert [status.name for status in sorted(Status)] == [
        "FALSIFIED",
        "VACUOUS",
        "BROKEN",
        "STALE",
        "PENDING",
        "PARTIAL_ALGORITHM_LEVEL",
        "DISCHARGED",
    ]


def test_reduced_cases_alone_are_partial() -> None:
    """All held where the contract names no larger scale, or where that did not run."""
    caught = reduced("caught", defect="drop-bias")
    only_reduced = contract({"cpu-f32": "reduced"})
    assert status_of(reduced(), caught, declared=only_reduced).status is (
        Status.PARTIAL_ALGORITHM_LEVEL
    )
    both = status_of(reduced(), full("not_run"), caught, declared=contract(BOTH))
    assert both.status is Status.PARTIAL_ALGORITHM_LEVEL


def test_reduced_cases_of_one_device_are_partial() -> None:
    """A machine without a GPU shows the algorithm, though the GPU's small cases are open."""
    caught = reduced("caught", defect="drop-bias")
    declared = contract({"cpu-f32": "reduced", "cuda-f32": "reduced"})
    status = status_of(reduced(), caught, declared=declared)
    assert status.status is Status.PARTIAL_ALGORITHM_LEVEL


def test_half_the_reduced_cases_of_a_device_are_pending() -> None:
    """One level is all cases of one device, not one case of each."""
    caught = reduced("caught", defect="drop-bias")
    declared = contract({"cpu-f32": "reduced", "cpu-bf16": "reduced", "cuda-f32": "reduced"})
    assert status_of(reduced(), caught, declared=declared).status is Status.PENDING


def test_full_cases_alone_discharge() -> None:
    """The reduced ones need not have run beside them."""
    rows = (full(), full("caught", defect="drop-bias"), reduced("not_run"))
    assert status_of(*rows, declared=contract(BOTH)).status is Status.DISCHARGED


def test_one_full_case_of_two_is_pending() -> None:
    """A half is no level of its own."""
    declared = contract({"cuda-bf16": "full", "cuda-f32": "full"})
    status = status_of(full(), full("caught", defect="drop-bias"), declared=declared)
    assert status.status is Status.PENDING
    assert status.why == ["TEST-A: 1 of 2 cases open, cuda-f32: no row"]


def test_a_pending_gate_says_why_its_case_did_not_run() -> None:
    """In the words of the row."""
    assert status_of(row("not_run")).why[-1] == "TEST-A: 1 of 1 cases open, cpu-f32: no CUDA device"


@pytest.mark.parametrize("allowed", [True, False])
def test_partial_ships_where_the_contract_allows_it(allowed: bool) -> None:
    """And only there."""
    declared = contract({"cpu-f32": "reduced"}, allows_partial=allowed)
    rows = (reduced(), reduced("caught", defect="drop-bias"))
    assert status_of(*rows, declared=declared).ships is allowed


@pytest.mark.parametrize("key", [HELD["key"], CAUGHT["key"]])
def test_a_stale_row_makes_the_gate_stale(key: str) -> None:
    """Claims and teeth alike."""
    assert status_of(HELD, CAUGHT, stale=frozenset({key})).status is Status.STALE


def test_stale_stands_between_broken_and_pending() -> None:
    """A stale gate with a missing case is stale; with a broken one it is broken."""
    declared = contract({"cpu-f32": "full", "c": "full"})
    stale = frozenset({HELD["key"]})
    assert status_of(HELD, CAUGHT, declared=declared, stale=stale).status is Status.STALE
    rows = (HELD, CAUGHT, row("broken", case="c"))
    assert status_of(*rows, declared=declared, stale=stale).status is Status.BROKEN


def test_staleness_of_a_row_that_nothing_rests_on_does_not_count() -> None:
    """Reduced rows beside full ones, and a second row for a caught defect."""
    declared = contract({**BOTH, "cuda-f32": "full"})
    rows = (
        full(),
        row(case="cuda-f32"),
        reduced(),
        full("caught", defect="drop-bias"),
        row("caught", case="cuda-f32", defect="drop-bias"),
    )
    stale = frozenset({"TEST-A[cpu-f32]", "TEST-A[cuda-bf16]!drop-bias"})
    assert status_of(*rows, declared=declared, stale=stale).status is Status.DISCHARGED
    both = stale | {"TEST-A[cuda-f32]!drop-bias"}
    assert status_of(*rows, declared=declared, stale=both).status is Status.STALE


def test_a_gate_is_as_bad_as_its_worst_test() -> None:
    """A test without rows keeps it pending, whatever the other one shows."""
    declared = contract(tests=["TEST-A", "TEST-B"])
    declared["tests"].append({**declared["tests"][0], "id": "TEST-B"})
    assert status_of(HELD, CAUGHT, declared=declared).status is Status.PENDING


@pytest.mark.parametrize("tests", [[], ["TEST-X"]])
def test_a_gate_over_nothing_is_pending(tests: list[str]) -> None:
    """No test, or one that no contract declares, is not a pass."""
    status = status_of(HELD, CAUGHT, declared=contract(tests=tests))
    assert status.status is Status.PENDING
    assert len(status.why) == 1


def test_the_closest_comparison_is_the_one_with_the_least_margin() -> None:
    """Exact comparisons have none and come last; teeth do not count."""
    exact = comparison(1.0, op="==", margin=None)
    body = row(comparisons=[exact, comparison(0.2), comparison(0.9), comparison(0.3)])
    status = status_of(body, CAUGHT)
    assert status.closest is not None
    assert status.closest.comparison.observed == 0.9
    assert status.closest.key == "TEST-A[cpu-f32]"


def test_the_closest_comparison_of_a_falsified_gate_is_the_failing_one() -> None:
    """Not the held one that stands nearer to its bound."""
    declared = contract({"cpu-f32": "full", "cpu-f64": "full"})
    status = status_of(
        row(observed=0.999), row("falsified", case="cpu-f64", observed=7.0), declared=declared
    )
    assert status.closest is not None
    assert status.closest.comparison.observed == 7.0


def test_gates_come_in_the_order_of_their_contracts() -> None:
    """Whatever the order of rows."""
    second = {**contract(), "id": "C-B", "tests": []}
    second["gates"] = [{**second["gates"][0], "id": name} for name in ("GATE-Z", "GATE-B")]
    contracts, rows = contracts_and_rows((HELD,), second, contract())
    assert [s.gate for s in gate_statuses(contracts, rows)] == ["GATE-Z", "GATE-B", "GATE-A"]
