"""Small runs to be explained: a failing test, others that hold, and what was planted in them."""

from __future__ import annotations

from pathlib import Path

from aprverify.evidence.records import Run
from tests.evidence.builder import Body, build_run, comparison, contract, row

CASES = {"cpu-a": "full", "cpu-b": "full"}
DEFECTS = ("drop-bias", "eps", "theta")


def named(name: str, body: Body) -> Body:
    """A contract, or a row, of the test TEST-`name` instead of TEST-A."""
    body = {**body}
    if "tests" in body:
        test = {**body["tests"][0], "id": f"TEST-{name}", "invariants": [f"INV-{name}"]}
        gate = {**body["gates"][0], "id": f"GATE-{name}", "tests": [f"TEST-{name}"]}
        path = f"contracts/{name.lower()}.yaml"
        return {**body, "id": f"C-{name}", "path": path, "tests": [test], "gates": [gate]}
    body["key"] = body["key"].replace("TEST-A", f"TEST-{name}")
    return {**body, "contract": f"C-{name}", "test": f"TEST-{name}"}


def contracts(*names: str) -> tuple[Body, ...]:
    """Contracts over two cases and three defects each."""
    return tuple(named(name, contract(CASES, DEFECTS)) for name in names or ("A",))


def caught(defect: str, observed: float, case: str = "cpu-a") -> Body:
    """A planted defect that was noticed by `observed` against a bound of 1."""
    return row("caught", case=case, defect=defect, observed=observed)


def failing(observed: float, case: str = "cpu-a") -> Body:
    """A claim that was falsified."""
    return row("falsified", case=case, observed=observed)


CLEAN = (row(case="cpu-a"), row(case="cpu-b"))
KNOWN = (*CLEAN, caught("drop-bias", 2.0), caught("eps", 40.0), caught("theta", 9000.0))


def evidence(folder: Path, rows: tuple[Body, ...] = KNOWN, *names: str) -> Run:
    """A run in which everything held and every defect was caught."""
    return build_run(folder, rows, contracts=contracts(*names), run_id="evidence")


def broken_by_plant(defect: str) -> Body:
    """A defect that was reached and changed nothing."""
    why = {"kind": "plant", "detail": f"{defect} was not in force: reached 3 times", "remedy": ""}
    plant = {"reached": 3, "changed": 0, "canary": "same"}
    made = [comparison(2.0)]
    return row(
        "broken", case="cpu-a", defect=defect, reason=why, plant=plant,
        comparisons=made, measures={"loss": 2.0},
    )  # fmt: skip
