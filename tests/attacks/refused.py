"""Attacks that no key is needed to refuse: the reader does, by the name given with each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from aprverify.evidence import refusals
from aprverify.evidence.refusals import EvidenceRefused

from .tampering import Body, Evidence

Attack = Callable[[Evidence], None]
_LATER = "2999-01-01T00:00:00Z"
_EARLIER = "1999-01-01T00:00:00Z"


@dataclass(frozen=True)
class Case:
    """An attack and the refusal that it must meet; `says` is in its message."""

    name: str
    attack: Attack
    refusal: type[EvidenceRefused]
    says: str


CASES: list[Case] = []


def attack(
    refusal: type[EvidenceRefused], says: str, mended: bool = True
) -> Callable[[Attack], Attack]:
    """Register an attack on lines; the chain is mended after it unless told not to."""

    def register(function: Attack) -> Attack:
        def whole(evidence: Evidence) -> None:
            function(evidence)
            evidence.save(mended)

        CASES.append(Case(function.__name__, whole, refusal, says))
        return function

    return register


def on_bytes(refusal: type[EvidenceRefused], says: str) -> Callable[[Attack], Attack]:
    """Register an attack that writes the file itself."""

    def register(function: Attack) -> Attack:
        CASES.append(Case(function.__name__, function, refusal, says))
        return function

    return register


def _reason(kind: str = "error") -> Body:
    return {"kind": kind, "detail": "it broke", "remedy": ""}


# -- lines edited, with the chain left as it was ----------------------------------------------


@attack(refusals.BrokenChain, "seq is", mended=False)
def drop_a_row(e: Evidence) -> None:
    e.drop(e.held)


@attack(refusals.BrokenChain, "seq is", mended=False)
def drop_the_header(e: Evidence) -> None:
    e.drop(e.header)


@attack(refusals.BrokenChain, "seq is", mended=False)
def drop_a_contract(e: Evidence) -> None:
    e.drop(e.of("contract")[0])


@attack(refusals.NoFooter, "no footer", mended=False)
def drop_the_footer(e: Evidence) -> None:
    e.drop(e.footer)


@attack(refusals.BrokenChain, "seq is", mended=False)
def repeat_a_row(e: Evidence) -> None:
    place = e.bodies.index(e.held)
    e.bodies.insert(place, dict(e.held))


@attack(refusals.BrokenChain, "seq is", mended=False)
def swap_two_rows(e: Evidence) -> None:
    place = e.bodies.index(e.of("row")[0])
    e.bodies[place : place + 2] = e.bodies[place + 1], e.bodies[place]


@attack(refusals.BrokenChain, "prev is not", mended=False)
def edit_a_row(e: Evidence) -> None:
    e.held["worker"] = "another"


@attack(refusals.BrokenChain, "prev is not", mended=False)
def edit_the_header(e: Evidence) -> None:
    e.header["subject"] = "another"


@attack(refusals.BrokenChain, "prev is not", mended=False)
def renumber_without_the_hashes(e: Evidence) -> None:
    e.drop(e.held)
    for number, body in enumerate(e.bodies):
        body["seq"] = number


@attack(refusals.BrokenChain, "seq is", mended=False)
def two_runs_in_one_file(e: Evidence) -> None:
    e.bodies += [dict(body) for body in e.bodies]


# -- bytes ------------------------------------------------------------------------------------


@on_bytes(refusals.EmptyRun, "empty")
def nothing_left(e: Evidence) -> None:
    e.write()


@on_bytes(refusals.DamagedLine, "cut off")
def cut_in_a_line(e: Evidence) -> None:
    data = b"".join(e.lines())
    e.write(data[: len(data) * 2 // 3])


@on_bytes(refusals.DamagedLine, "cut off")
def cut_before_the_last_newline(e: Evidence) -> None:
    e.write(b"".join(e.lines())[:-1])


@on_bytes(refusals.NoFooter, "no footer")
def cut_between_lines(e: Evidence) -> None:
    e.write(*e.lines()[: len(e.lines()) // 2])


@on_bytes(refusals.DamagedLine, "no JSON")
def zeros_where_the_disk_gave_up(e: Evidence) -> None:
    e.write(*e.lines()[:-1], b"\0" * 512 + b"\n")


@on_bytes(refusals.DamagedLine, "blanks or a carriage return")
def carriage_returns(e: Evidence) -> None:
    e.write(*(line.replace(b"\n", b"\r\n") for line in e.lines()))


@on_bytes(refusals.DamagedLine, "blanks or a carriage return")
def blanks_before_a_line(e: Evidence) -> None:
    first, *rest = e.lines()
    e.write(b"  " + first, *rest)


@on_bytes(refusals.DamagedLine, "no JSON")
def a_blank_line(e: Evidence) -> None:
    first, *rest = e.lines()
    e.write(first, b"\n", *rest)


@on_bytes(refusals.DamagedLine, "no JSON")
def a_byte_order_mark(e: Evidence) -> None:
    first, *rest = e.lines()
    e.write(b"\xef\xbb\xbf" + first, *rest)


@on_bytes(refusals.DamagedLine, "no JSON")
def another_encoding(e: Evidence) -> None:
    first, *rest = e.lines()
    text = first.decode().rstrip("\n").replace("{", "{ ", 1)
    e.write(text.encode("utf-16-be") + b"\n", *rest)


@on_bytes(refusals.DamagedLine, "no JSON")
def bytes_that_are_no_text(e: Evidence) -> None:
    first, *rest = e.lines()
    e.write(first.replace(b'"header"', b'"header\xe9"'), *rest)


def _in_last_row(e: Evidence, old: str, new: str) -> None:
    """Replace text of the last row's line, and mend the footer's hash of it."""
    e.save()
    *before, row, footer = e.lines()
    text = row.decode()
    assert old in text
    changed = text.replace(old, new, 1).encode()
    digest = hashlib.sha256(changed[:-1]).hexdigest()
    body = json.loads(footer)
    e.write(*before, changed, json.dumps({**body, "prev": digest}).encode() + b"\n")


@on_bytes(refusals.DamagedLine, "repeats a key")
def one_key_twice(e: Evidence) -> None:
    _in_last_row(e, '"outcome": ', '"outcome": "held", "outcome": ')


@on_bytes(refusals.DamagedLine, "repeats a key")
def one_key_twice_spelled_apart(e: Evidence) -> None:
    _in_last_row(e, '"outcome": ', '"outcom\\u0065": "held", "outcome": ')


@on_bytes(refusals.DamagedLine, "bare NaN")
def a_bare_nan(e: Evidence) -> None:
    _in_last_row(e, '"seconds": ', '"seconds": NaN, "x": ')


@on_bytes(refusals.DamagedLine, "bare Infinity")
def a_bare_infinity(e: Evidence) -> None:
    _in_last_row(e, '"seconds": ', '"seconds": Infinity, "x": ')


@on_bytes(refusals.DamagedLine, "beyond the largest number")
def a_number_beyond_all(e: Evidence) -> None:
    _in_last_row(e, '"seconds": ', '"seconds": 1e999, "x": ')


@on_bytes(refusals.DamagedLine, "integer of 400 digits")
def an_integer_beyond_all(e: Evidence) -> None:
    _in_last_row(e, '"seconds": ', f'"seconds": {"9" * 400}, "x": ')


@on_bytes(refusals.DamagedLine, "nested|recursion")
def nested_without_end(e: Evidence) -> None:
    _in_last_row(e, '"measures": {', f'"measures": {{"x": {"[" * 50_000}{"]" * 50_000}, ')


@on_bytes(refusals.DamagedLine, "nested|recursion")
def nested_as_deep_as_json_allows(e: Evidence) -> None:
    _in_last_row(e, '"measures": {', f'"measures": {{"x": {"[" * 900}{"]" * 900}, ')


@on_bytes(refusals.DamagedLine, "surrogates not allowed")
def half_a_character(e: Evidence) -> None:
    _in_last_row(e, '"worker": "', '"worker": "\\ud800')


@on_bytes(refusals.DamagedLine, "no JSON")
def a_trailing_comma(e: Evidence) -> None:
    _in_last_row(e, '"worker": ', '"worker": "w",, "x": ')


# -- the schema, with the chain mended --------------------------------------------------------


@attack(refusals.SchemaViolation, "header line here")
def two_headers(e: Evidence) -> None:
    e.bodies.insert(1, dict(e.header))


@attack(refusals.SchemaViolation, "header line here")
def two_runs_in_one_chain(e: Evidence) -> None:
    e.bodies = [*e.bodies[:-1], *(dict(body) for body in e.bodies)]


@attack(refusals.SchemaViolation, "after the footer")
def two_footers(e: Evidence) -> None:
    e.bodies.append(dict(e.footer))


@attack(refusals.SchemaViolation, "after the footer")
def a_row_after_the_footer(e: Evidence) -> None:
    e.bodies.append(dict(e.held))


@attack(refusals.SchemaViolation, "no kind of line")
def a_line_of_another_kind(e: Evidence) -> None:
    e.bodies.insert(1, {"type": "note"})


@attack(refusals.SchemaViolation, "aprverify-run/1")
def another_schema(e: Evidence) -> None:
    e.header["schema"] = "aprverify-run/0"


@attack(refusals.SchemaViolation, "Additional properties|additional")
def a_field_of_its_own(e: Evidence) -> None:
    e.held["waived"] = True


@attack(refusals.SchemaViolation, "not of type 'integer'")
def a_count_with_a_point(e: Evidence) -> None:
    e.footer["rows"] = float(e.footer["rows"])


@attack(refusals.SchemaViolation, "not of type 'integer'")
def a_count_that_is_true(e: Evidence) -> None:
    e.header["planned"] = True


@attack(refusals.SchemaViolation, "minimum|less than")
def a_negative_count(e: Evidence) -> None:
    e.footer["outcomes"]["held"] = -1


@attack(refusals.SchemaViolation, "do not show")
def a_name_that_clears_the_screen(e: Evidence) -> None:
    e.header["subject"] = "bundled\x1b[2J"


@attack(refusals.SchemaViolation, "do not show")
def a_name_written_backwards(e: Evidence) -> None:
    e.of("contract")[0]["gates"][0]["id"] += "\u202e"


@attack(refusals.SchemaViolation, "do not show")
def a_name_with_a_space_of_no_width(e: Evidence) -> None:
    e.of("contract")[0]["gates"].append({**e.of("contract")[0]["gates"][0]})
    e.of("contract")[0]["gates"][-1]["id"] += "\u200b"


@attack(refusals.SchemaViolation, "out of the repository")
def a_path_that_leads_elsewhere(e: Evidence) -> None:
    e.of("contract")[0]["path"] = "../../etc/passwd"


# -- counts -----------------------------------------------------------------------------------


@attack(refusals.CountMismatch, "the counts differ")
def drop_a_row_and_mend_the_chain(e: Evidence) -> None:
    e.drop(e.held)


@attack(refusals.CountMismatch, "no row of")
def drop_a_row_and_mend_the_counts(e: Evidence) -> None:
    e.drop(e.held)
    e.recount()


@attack(refusals.CountMismatch, "no row of")
def drop_a_falsified_row_and_mend_the_counts(e: Evidence) -> None:
    body, _ = e.falsify()
    e.drop(body)
    e.recount()


@attack(refusals.CountMismatch, "under")
def drop_all_teeth(e: Evidence) -> None:
    e.drop(*(body for body in e.of("row") if body["kind"] == "teeth"))
    e.recount()


@attack(refusals.CountMismatch, "under")
def drop_the_teeth_of_one_defect(e: Evidence) -> None:
    same = (e.caught["test"], e.caught["defect"])
    e.drop(*(body for body in e.of("row") if (body["test"], body["defect"]) == same))
    e.recount()


@attack(refusals.CountMismatch, "no row of")
def declare_a_case_that_never_ran(e: Evidence) -> None:
    cases = e.declared(e.held)[1]["cases"]
    cases.append({**cases[0], "id": cases[0]["id"] + ",extra=1"})


@attack(refusals.CountMismatch, "outcomes")
def count_other_outcomes(e: Evidence) -> None:
    e.footer["outcomes"] = {"held": e.footer["rows"]}


@attack(refusals.CountMismatch, "no outcome")
def count_an_outcome_of_its_own(e: Evidence) -> None:
    e.footer["outcomes"]["passed"] = 0


@attack(refusals.CountMismatch, "the counts differ")
def plan_fewer(e: Evidence) -> None:
    e.header["planned"] -= 1


@attack(refusals.CountMismatch, "the counts differ")
def the_header_of_a_smaller_run(e: Evidence) -> None:
    e.header.update(run_id="another", planned=1)


@attack(refusals.DuplicateKey, "a second row")
def merge_a_run_with_itself(e: Evidence) -> None:
    e.bodies[-1:-1] = [dict(body) for body in e.of("row")]
    e.recount()


@attack(refusals.DuplicateKey, "a second row")
def add_a_better_row(e: Evidence) -> None:
    good = json.loads(json.dumps(e.held))
    e.falsify()
    e.bodies.insert(-1, good)
    e.recount()


@attack(refusals.InconsistentRow, "was interrupted")
def hide_an_interruption(e: Evidence) -> None:
    e.caught.update(outcome="not_run", reason=_reason("interrupted"), comparisons=[], plant=None)
    e.recount()


# -- hiding a falsified row -------------------------------------------------------------------


@attack(refusals.InconsistentRow, "a comparison does not hold")
def call_it_held(e: Evidence) -> None:
    body, _ = e.falsify()
    body["outcome"] = "held"
    e.recount()


def _without_verdict(outcome: str) -> Attack:
    def function(e: Evidence) -> None:
        body, _ = e.falsify()
        body.update(outcome=outcome, reason=_reason())
        e.recount()

    function.__name__ = f"call_it_{outcome}"
    return function


for _outcome in ("broken", "inconclusive", "not_run"):
    attack(refusals.InconsistentRow, "does not hold")(_without_verdict(_outcome))


@attack(refusals.InconsistentRow, "without a comparison")
def call_it_held_without_comparisons(e: Evidence) -> None:
    body, _ = e.falsify()
    body.update(outcome="held", comparisons=[])
    e.recount()


@attack(refusals.InconsistentRow, "without a comparison")
def call_a_caught_one_survived_without_comparisons(e: Evidence) -> None:
    e.caught.update(outcome="survived", comparisons=[])
    e.recount()


@attack(refusals.InconsistentRow, "the row says True")
def say_that_it_holds(e: Evidence) -> None:
    body, made = e.falsify()
    made["holds"] = True
    body["outcome"] = "held"
    e.recount()


@attack(refusals.InconsistentRow, "nothing was compared for|was not compared")
def leave_the_comparison_out(e: Evidence) -> None:
    body, made = e.falsify()
    body["comparisons"].remove(made)
    body["outcome"] = "held"
    e.recount()


@attack(refusals.InconsistentRow, "the row compares by >=, the claim by <=")
def turn_the_operator(e: Evidence) -> None:
    body, made = e.falsify()
    made["op"] = ">="
    e.evaluate(made)
    body["outcome"] = "held"
    e.recount()


@attack(refusals.InconsistentRow, "bound is|observed is")
def raise_the_bound(e: Evidence) -> None:
    body, made = e.falsify()
    made["bound"] *= 4
    made["bound"] += 4
    e.evaluate(made)
    body["outcome"] = "held"
    e.recount()


@attack(refusals.InconsistentRow, "what the row measured makes")
def lower_what_was_observed(e: Evidence) -> None:
    body, made = e.falsify()
    e.observe(made, made["bound"] / 2)
    body["outcome"] = "held"
    e.recount()


@attack(refusals.InconsistentRow, "what the row measured makes")
def raise_what_was_measured(e: Evidence) -> None:
    body, made = e.target
    body["measures"][made["text"].partition(" <= ")[0]] = made["bound"] * 2 + 1


@attack(refusals.InconsistentRow, "was not compared|is not what the contract claims")
def compare_something_else(e: Evidence) -> None:
    body, made = e.falsify()
    made.update(text="0 <= 1", observed=0, bound=1)
    e.evaluate(made)
    body["outcome"] = "held"
    e.recount()


@attack(refusals.InconsistentRow, "which the contract does not claim|which claim")
def compare_under_another_claim(e: Evidence) -> None:
    e.compared["claim"] = "claim-of-nobody"


@attack(refusals.InconsistentRow, "repeated, or in another order")
def compare_one_thing_twice(e: Evidence) -> None:
    e.held["comparisons"].append(dict(e.held["comparisons"][0]))


@attack(refusals.InconsistentRow, "slack and margin are")
def a_wider_margin(e: Evidence) -> None:
    e.compared["margin"] = 0.123456


@attack(refusals.InconsistentRow, "slack and margin are")
def a_wider_slack(e: Evidence) -> None:
    e.compared["slack"] = 1e9


@attack(refusals.InconsistentRow, "non-finite value is said to hold")
def a_nan_that_holds(e: Evidence) -> None:
    body, made = e.target
    body["measures"][made["text"].partition(" <= ")[0]] = "NaN"
    made.update(observed="NaN", slack="NaN", margin=None)


@attack(refusals.InconsistentRow, "non-finite value is said to hold")
def a_bound_without_end(e: Evidence) -> None:
    e.compared.update(bound="Infinity", slack="Infinity", margin=None)


@attack(refusals.InconsistentRow, "cannot be evaluated again")
def a_text_for_a_number(e: Evidence) -> None:
    e.compared["observed"] = "small"


@attack(refusals.InconsistentRow, "bound is")
def a_bound_of_ones_own_where_the_claim_writes_it(e: Evidence) -> None:
    for body in e.rows_of("held"):
        for made in body["comparisons"]:
            name, op, _ = made["text"].partition(" == ")
            if op and name in body["measures"] and made["text"].endswith(("== 0", "== 3")):
                body["measures"][name] += 1
                made["bound"] += 1
                made["observed"] += 1
                return
    raise AssertionError("no exact comparison")


@attack(refusals.DuplicateKey, "claim")
def a_milder_claim_of_the_same_name(e: Evidence) -> None:
    claims = e.declared(e.held)[1]["claims"]
    claims.append({**claims[0], "expr": "0 <= 1"})


@attack(refusals.InconsistentRow, "which the contract does not claim")
def take_a_claim_out_of_the_contract(e: Evidence) -> None:
    claims = e.declared(e.held)[1]["claims"]
    claims[:] = [claim for claim in claims if claim["id"] != e.compared["claim"]]


@attack(refusals.InconsistentRow, "is not what the contract claims|was not compared")
def soften_a_claim_of_the_contract(e: Evidence) -> None:
    name = e.compared["claim"]
    for claim in e.declared(e.held)[1]["claims"]:
        if claim["id"] == name:
            claim["expr"] = "0 <= 1"


@attack(refusals.InconsistentRow, "cannot be read")
def a_claim_that_is_none(e: Evidence) -> None:
    e.declared(e.held)[1]["claims"][0]["expr"] = "__import__('os').system('true')"


@attack(refusals.UnknownTest, "no gate rests on")
def take_a_test_out_of_its_gate(e: Evidence) -> None:
    line, test = e.declared(e.held)
    for gate in line["gates"]:
        gate["tests"] = [name for name in gate["tests"] if name != test["id"]]


@attack(refusals.UnknownTest, "the contract does not declare")
def a_gate_of_tests_that_are_none(e: Evidence) -> None:
    e.of("contract")[0]["gates"][0]["tests"].append("TEST-OF-NOBODY")


@attack(refusals.DuplicateKey, "gate")
def a_gate_twice(e: Evidence) -> None:
    gates = e.of("contract")[0]["gates"]
    gates.append(dict(gates[0]))


# -- teeth ------------------------------------------------------------------------------------


@attack(refusals.InconsistentRow, "every comparison holds")
def a_survivor_called_caught(e: Evidence) -> None:
    e.held.update(outcome="falsified")
    e.recount()


@attack(refusals.InconsistentRow, "a comparison does not hold")
def a_caught_one_called_survived(e: Evidence) -> None:
    e.caught["outcome"] = "survived"
    e.recount()


@attack(refusals.InconsistentRow, "cannot be held")
def a_caught_one_called_held(e: Evidence) -> None:
    e.caught["outcome"] = "held"
    e.recount()


@attack(refusals.InconsistentRow, "without proof")
def no_proof_of_the_defect(e: Evidence) -> None:
    e.caught["plant"] = None


@attack(refusals.InconsistentRow, "never reached")
def a_defect_never_reached(e: Evidence) -> None:
    e.caught["plant"]["reached"] = 0


@attack(refusals.InconsistentRow, "changed no output")
def a_defect_without_effect(e: Evidence) -> None:
    e.caught["plant"]["changed"] = 0


@attack(refusals.InconsistentRow, "outlived its removal")
def a_defect_that_stayed(e: Evidence) -> None:
    e.caught["plant"]["canary"] = "different"


@attack(refusals.InconsistentRow, "planted defect")
def a_defect_in_a_clean_row(e: Evidence) -> None:
    e.held["plant"] = {"reached": 1, "changed": 1, "canary": "same"}


@attack(refusals.UnknownTest, "no counter-example|key is no")
def teeth_of_another_defect(e: Evidence) -> None:
    body = e.caught
    body["key"] = body["key"].replace(f"!{body['defect']}", "!harmless")
    body["defect"] = "harmless"


@attack(refusals.UnknownTest, "no counter-example")
def take_a_defect_out_of_the_contract(e: Evidence) -> None:
    e.declared(e.caught)[1]["counter_examples"].remove(e.caught["defect"])


@attack(refusals.DuplicateKey, "counter-example")
def count_a_defect_twice(e: Evidence) -> None:
    e.declared(e.caught)[1]["counter_examples"].append(e.caught["defect"])


@attack(refusals.InconsistentRow, "without a defect|under the defect")
def teeth_called_a_claim(e: Evidence) -> None:
    e.caught["kind"] = "claim"


@attack(refusals.InconsistentRow, "no defect was to be planted")
def say_that_none_was_planted(e: Evidence) -> None:
    e.header["selection"]["teeth"] = "none"


@attack(refusals.CountMismatch, "left out for their cost")
def say_that_something_was_too_dear(e: Evidence) -> None:
    e.header["selection"].update(complete=True, too_dear={"seconds": 15, "entries": 1})


# -- scale, device, place ---------------------------------------------------------------------


def _reduced(e: Evidence) -> Body:
    return next(body for body in e.rows_of("held") if body["scale"] == "reduced")


def _on_cuda(e: Evidence) -> Body:
    return next(body for body in e.rows_of("held") if body["case"]["device"] == "cuda")


@attack(refusals.UnknownTest, "scale is full")
def claim_full_scale(e: Evidence) -> None:
    _reduced(e)["scale"] = "full"


@attack(refusals.DuplicateKey, "case")
def declare_a_case_at_both_scales(e: Evidence) -> None:
    cases = e.declared(_reduced(e))[1]["cases"]
    cases += [{**case, "scale": "full"} for case in cases]


@attack(refusals.UnknownTest, "its case is on cuda")
def claim_the_other_device(e: Evidence) -> None:
    body = next(b for b in e.rows_of("held") if b["case"]["device"] == "cpu")
    body["case"]["device"] = "cuda"


@attack(refusals.UnknownTest, "its case is on")
def name_no_device(e: Evidence) -> None:
    del _on_cuda(e)["case"]["device"]


@attack(refusals.UnknownTest, "its key says")
def another_point_of_the_matrix(e: Evidence) -> None:
    e.held["case"]["dtype"] = "float64"


@attack(refusals.UnknownTest, "the key is no")
def a_key_of_another_case(e: Evidence) -> None:
    e.held["key"] = e.held["key"].replace("]", ",extra=1]")


@attack(refusals.InconsistentRow, "has no GPU")
def cuda_without_a_gpu(e: Evidence) -> None:
    row = _on_cuda(e)
    line = next(x for x in e.of("environment") if x["id"] == row["environment"])
    line["gpus"] = []
    e.rename_environment(line)


@attack(refusals.InconsistentRow, "of the lane cpu")
def claim_another_lane(e: Evidence) -> None:
    e.header["selection"]["lane"] = "cpu"


@attack(refusals.UnknownEnvironment, "not the hash")
def another_driver(e: Evidence) -> None:
    e.of("environment")[0]["driver"] = "999.0"


@attack(refusals.UnknownEnvironment, "names env-")
def a_machine_that_nobody_described(e: Evidence) -> None:
    e.held["environment"] = "env-000000000000"


@attack(refusals.UnknownEnvironment, "no row ran in")
def a_machine_to_show_off_with(e: Evidence) -> None:
    line = json.loads(json.dumps(e.of("environment")[0]))
    line["gpus"] = [{"name": "Big GPU", "memory_gib": 999.0, "compute_capability": "99.0"}]
    e.bodies.insert(e.bodies.index(e.of("environment")[0]) + 1, line)
    kept = {body["key"]: body["environment"] for body in e.of("row")}
    e.rename_environment(line)
    for body in e.of("row"):
        body["environment"] = kept[body["key"]]


@attack(refusals.DuplicateKey, "declared twice")
def a_machine_twice(e: Evidence) -> None:
    line = e.of("environment")[0]
    e.bodies.insert(e.bodies.index(line), dict(line))


# -- contracts --------------------------------------------------------------------------------


@attack(refusals.UnknownTest, "declares no test")
def swap_the_contract(e: Evidence) -> None:
    others = [line["id"] for line in e.of("contract") if line["id"] != e.held["contract"]]
    e.held["contract"] = others[0]


@attack(refusals.UnknownContract, "names contract")
def drop_the_contract(e: Evidence) -> None:
    e.drop(e.declared(e.held)[0])


@attack(refusals.DuplicateKey, "declared twice")
def a_contract_twice(e: Evidence) -> None:
    line = e.of("contract")[0]
    e.bodies.insert(2, json.loads(json.dumps(line)))


@attack(refusals.DuplicateKey, "declared twice")
def one_test_in_two_contracts(e: Evidence) -> None:
    line = json.loads(json.dumps(e.of("contract")[0]))
    e.bodies.insert(2, {**line, "id": "C-MILD"})


@attack(refusals.UnknownTest, "the contract says")
def another_falsifier(e: Evidence) -> None:
    e.held["falsifier"] = "falsifiers.mild.falsify_nothing"


@attack(refusals.UnknownTest, "the contract says")
def another_falsifier_in_the_contract(e: Evidence) -> None:
    e.declared(e.held)[1]["falsifier"] = "falsifiers.mild.falsify_nothing"


@attack(refusals.InconsistentRow, "a reason for having no verdict")
def a_verdict_with_an_excuse(e: Evidence) -> None:
    e.held["reason"] = _reason()


@attack(refusals.InconsistentRow, "without a reason")
def no_verdict_and_no_excuse(e: Evidence) -> None:
    e.held.update(outcome="not_run", comparisons=[])
    e.recount()


# -- clocks -----------------------------------------------------------------------------------


@attack(refusals.ClockOrder, "run backwards")
def a_row_before_the_run(e: Evidence) -> None:
    e.held["started"] = _EARLIER


@attack(refusals.ClockOrder, "run backwards")
def a_row_after_the_run(e: Evidence) -> None:
    e.held["started"] = _LATER


@attack(refusals.ClockOrder, "run backwards")
def an_end_before_the_start(e: Evidence) -> None:
    e.footer["finished"] = _EARLIER


@attack(refusals.ClockOrder, "run backwards")
def a_start_after_the_end(e: Evidence) -> None:
    e.header["started"] = _LATER


@attack(refusals.ClockOrder, "month|day|Invalid|range|isoformat")
def a_time_that_is_none(e: Evidence) -> None:
    e.held["started"] = "2026-13-45T99:00:00Z"


@attack(refusals.ClockOrder, "further apart or nearer")
def a_footer_of_a_longer_run(e: Evidence) -> None:
    e.footer["seconds"] += 3600


@attack(refusals.ClockOrder, "further apart or nearer")
def evidence_made_younger(e: Evidence) -> None:
    e.footer["finished"] = "2998-01-01T00:00:00Z"


@attack(refusals.ClockOrder, "ends after the run")
def a_row_longer_than_its_run(e: Evidence) -> None:
    e.held["seconds"] = 1e9
