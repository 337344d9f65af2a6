"""Attacks that leave a run as an honest one could be: only a signature made before shows them.

Whoever writes all lines of a run may write what he likes, as long as it adds up. Some of these a
gate notices all the same, since it has the contracts and the files at hand; a reader has not.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from .tampering import Body, Evidence

Attack = Callable[[Evidence], None]
ATTACKS: list[Attack] = []


def attack(function: Attack) -> Attack:
    """Register an attack on lines; the chain is mended after it."""
    ATTACKS.append(function)
    return function


def _test_rows(e: Evidence, body: Body) -> list[Body]:
    return [other for other in e.of("row") if other["test"] == body["test"]]


@attack
def another_value_measured_and_compared(e: Evidence) -> None:
    e.measure(e.compared["bound"] / 3)


@attack
def another_bound_in_every_row(e: Evidence) -> None:
    """A gate computes bounds again from the contract of the checkout."""
    body, made = e.target
    bound = made["bound"] * 2
    for other in _test_rows(e, body):
        for one in other["comparisons"]:
            if (one["claim"], one["text"]) == (made["claim"], made["text"]):
                one["bound"] = bound
                e.evaluate(one)
                if other["outcome"] in ("caught", "held"):
                    good = all(c["holds"] for c in other["comparisons"])
                    other["outcome"] = _outcome(other["kind"], good)
    e.recount()


def _outcome(kind: str, good: bool) -> str:
    if kind == "teeth":
        return "survived" if good else "caught"
    return "held" if good else "falsified"


@attack
def a_held_row_called_falsified(e: Evidence) -> None:
    """Evidence against a trainer is forged as easily as evidence for it."""
    e.falsify()


@attack
def a_verdict_replaced_by_an_excuse(e: Evidence) -> None:
    """The gate is PENDING then, so that nothing is gained but silence."""
    reason = {"kind": "asset", "detail": "not fetched", "remedy": ""}
    e.held.update(outcome="not_run", reason=reason, comparisons=[], measures={})
    e.recount()


@attack
def a_row_dropped_from_a_run_that_says_it_is_a_part(e: Evidence) -> None:
    """A gate asks for every entry of its checkout, and finds it unseen."""
    e.drop(e.held)
    e.header["selection"]["complete"] = False
    e.recount()


@attack
def a_claim_dropped_everywhere(e: Evidence) -> None:
    """A gate notices that its contract claims more."""
    body, made = e.target
    claims = e.declared(body)[1]["claims"]
    claims[:] = [claim for claim in claims if claim["id"] != made["claim"]]
    name = made["claim"]
    for other in _test_rows(e, body):
        other["comparisons"] = [c for c in other["comparisons"] if c["claim"] != name]
        if other["kind"] == "teeth" and all(c["holds"] for c in other["comparisons"]):
            e.drop(other)
            defects = e.declared(body)[1]["counter_examples"]
            defects[:] = [d for d in defects if d != other["defect"]]
    left = set(e.declared(body)[1]["counter_examples"])
    for other in _test_rows(e, body):
        if other["defect"] is not None and other["defect"] not in left:
            e.drop(other)
    e.recount()


@attack
def a_counter_example_dropped_everywhere(e: Evidence) -> None:
    """A gate notices that its contract declares more."""
    same = (e.caught["test"], e.caught["defect"])
    e.declared(e.caught)[1]["counter_examples"].remove(e.caught["defect"])
    e.drop(*(body for body in e.of("row") if (body["test"], body["defect"]) == same))
    e.recount()


@attack
def a_case_called_full_scale_everywhere(e: Evidence) -> None:
    """A gate notices that its contract says reduced."""
    body = next(row for row in e.rows_of("held") if row["scale"] == "reduced")
    for case in e.declared(body)[1]["cases"]:
        case["scale"] = "full"
    for other in _test_rows(e, body):
        other["scale"] = "full"


@attack
def a_contract_of_another_text(e: Evidence) -> None:
    """A gate notices that its contract reads otherwise."""
    line = e.of("contract")[0]
    line.update(title="Everything is right", sha256="0" * 64)


@attack
def another_gpu(e: Evidence) -> None:
    for line in e.of("environment"):
        if line["gpus"]:
            line["gpus"][0]["name"] = "Bigger GPU"
            e.rename_environment(line)


@attack
def other_packages(e: Evidence) -> None:
    line = e.of("environment")[0]
    line["packages"]["torch"] = "99.0"
    e.rename_environment(line)


@attack
def another_subject(e: Evidence) -> None:
    """A gate notices that the rows are not about that subject's files."""
    e.header["subject"] = "another"


@attack
def another_commit(e: Evidence) -> None:
    e.header["source"].update(commit="0" * 40, dirty=False)


@attack
def another_version_of_aprverify(e: Evidence) -> None:
    e.header["source"].update(aprverify_version="9.9", aprverify_sha256="0" * 64)


@attack
def another_name(e: Evidence) -> None:
    e.header["run_id"] = e.file.parent.name + "-again"


@attack
def other_files(e: Evidence) -> None:
    """A gate notices where these are not the present ones."""
    for body in e.of("row"):
        body["source_id"] = "0" * 64


@attack
def another_asset(e: Evidence) -> None:
    e.held["assets"] = {"weights": "0" * 64}


@attack
def a_defect_reached_more_often(e: Evidence) -> None:
    e.caught["plant"].update(reached=10**6, changed=10**6)


@attack
def nothing_required(e: Evidence) -> None:
    """A gate requires what its policy says, whatever a run required of itself."""
    e.header["require"] = [] if e.header["require"] else ["cuda"]


@attack
def rows_in_another_order(e: Evidence) -> None:
    """Nothing follows from their order."""
    rows = e.of("row")
    e.drop(*rows)
    e.bodies[-1:-1] = reversed(rows)


@attack
def another_day(e: Evidence) -> None:
    e.bodies = json.loads(json.dumps(e.bodies).replace('"2026-', '"2027-'))


@attack
def shorter_durations(e: Evidence) -> None:
    for body in e.of("row"):
        body["seconds"] = 0.001


@attack
def interrupted_or_not(e: Evidence) -> None:
    e.footer["interrupted"] = not e.footer["interrupted"]
