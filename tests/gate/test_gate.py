"""The gate: what blocks, with which exit status, and that nothing passes by being left out."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aprverify.commands import gate
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import NotOfThisContract
from aprverify.gate.checkout import open_checkout
from aprverify.gate.recheck import recheck
from aprverify.suite import SuiteError
from aprverify.trust.signing import sign_run
from aprverify.views.intoto import statement
from tests.conftest import Toy, contract, falsification

from .conftest import (
    CPU_KEY,
    CUDA_KEY,
    GATE,
    TEETH_KEY,
    Call,
    command,
    declare,
    forget_files,
    policy,
    second_contract,
)
from .evidence import CPU, H100, write_run

Out = pytest.CaptureFixture[str]
OTHER = "toysuite.adapter:Other"


def told(capsys: Out, call: Call, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of the gate."""
    capsys.readouterr()
    status = call(*arguments, "--json")
    return status, json.loads(capsys.readouterr().out)


def test_a_gate_whose_every_entry_is_as_hoped_is_met(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """And says what was not looked at first, the verdict last."""
    assert judge(write_run(declared, "a")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Not shown: who made 1 run (unsigned);")
    assert lines[-1] == "GATE MET: 1 required gate."


@pytest.mark.parametrize(
    ("key", "outcome", "status", "code", "todo"),
    [
        (
            CPU_KEY,
            "falsified",
            "FALSIFIED",
            1,
            "`pytest -k FALSIFY-TOY-001`; Count on your fingers.",
        ),
        (TEETH_KEY, "survived", "VACUOUS", 3, "until one-more fails it"),
        (CPU_KEY, "broken", "BROKEN", 4, "run it on a GPU machine"),
        (CPU_KEY, "inconclusive", "BROKEN", 4, "run it on a GPU machine"),
        (CUDA_KEY, "not_run", "PENDING", 5, "where there is cuda"),
        (TEETH_KEY, "not_run", "PENDING", 5, "aprverify verify -k GATE-TOY-001"),
    ],
)
def test_each_ill_has_its_exit_status_its_reason_and_its_remedy(
    declared: Toy,
    judge: Call,
    capsys: Out,
    key: str,
    outcome: str,
    status: str,
    code: int,
    todo: str,
) -> None:
    """One entry is enough; a defect that one device caught has been caught."""
    outcomes = {key: outcome}
    if key == TEETH_KEY:
        outcomes[TEETH_KEY.replace("cpu", "cuda")] = outcome
    found, body = told(capsys, judge, write_run(declared, "a", outcomes))
    (decision,) = body["gates"]
    assert (found, decision["status"], decision["blocks"]) == (code, status, True)
    reasons = " ".join(decision["why"])
    assert (key if outcome != "not_run" else "FALSIFY-TOY-001") in reasons
    assert todo in " ".join(decision["what_to_do"])


def test_of_several_ills_the_worst_is_the_exit_status(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """Pending in one gate, falsified in another."""
    second_contract(declared)
    outcomes = {CPU_KEY: "falsified", "FALSIFY-TWO[device=cpu]": "not_run"}
    assert judge(write_run(declared, "a", outcomes)) == 1
    outcomes = {CPU_KEY: "not_run", "FALSIFY-TWO[device=cpu]!one-more": "survived"}
    assert judge(write_run(declared, "b", outcomes)) == 3
    assert "2 of 2 required gates; worst: vacuous (exit status 3)" in capsys.readouterr().out


def test_no_evidence_meets_no_gate(declared: Toy, judge: Call) -> None:
    """An empty folder of evidence, and a folder that is not there."""
    assert judge() == 5
    (declared.root / "evidence" / "runs").mkdir(parents=True)
    assert judge() == 5


def test_the_committed_evidence_is_what_is_judged_by_default(declared: Toy, judge: Call) -> None:
    """As is a folder of evidence that is named."""
    run = write_run(declared, "a")
    runs = declared.root / "evidence" / "runs"
    runs.mkdir(parents=True)
    run.rename(runs / "a")
    assert judge() == 0
    assert judge(declared.root / "evidence") == 0


def test_a_folder_beside_a_run_does_not_hide_it(declared: Toy, judge: Call) -> None:
    """An empty one, with the name of the one that evidence is kept in."""
    good, bad = write_run(declared, "a"), write_run(declared, "b", {CPU_KEY: "falsified"})
    (bad / "runs").mkdir()
    assert judge(bad) == 1
    assert judge(good, bad) == 9


def test_evidence_that_was_given_and_holds_no_run_is_refused(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """A folder that lost its runs is not the same as one that nobody named."""
    (declared.root / "kept" / "runs").mkdir(parents=True)
    assert judge(write_run(declared, "a"), declared.root / "kept") == 7
    assert "was given as evidence, and holds no run" in capsys.readouterr().err


# -- gates that are dropped -------------------------------------------------------------------


def _drop(toy: Toy, how: str) -> None:
    if how == "flipped":
        second_contract(toy, ship_blocking=False)
    else:
        (toy.root / "contracts" / "two.yaml").unlink()
    forget_files()


@pytest.mark.parametrize(
    ("how", "what"),
    [("flipped", "does not block shipping here"), ("deleted", "its contract C-TWO with it")],
)
def test_a_gate_that_blocked_shipping_cannot_be_dropped_in_silence(
    declared: Toy, judge: Call, capsys: Out, how: str, what: str
) -> None:
    """The contracts in the runs remember it; whoever drops it must say so in the policy."""
    second_contract(declared)
    run = write_run(declared, "a", {"FALSIFY-TWO[device=cpu]": "falsified"})
    assert judge(run) == 1
    _drop(declared, how)
    status, body = told(capsys, judge, run)
    (dropped,) = body["dropped_gates"]
    assert (status, dropped["gate"], dropped["blocks"]) == (9, "GATE-TWO", True)
    assert dropped["what"].endswith(what)
    assert judge(run) == 9
    said = capsys.readouterr().out
    assert "DROPPED  GATE-TWO" in said
    assert "0 of 1 required gate; 1 gate that blocked shipping dropped; worst: conflict" in said


def test_a_dropped_gate_is_answered_for_until_its_day(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """As a waiver is; and it stays in sight."""
    second_contract(declared)
    run = write_run(declared, "a")
    _drop(declared, "deleted")
    policy(declared, retired=[{**ANSWERED, "gate": "GATE-TWO"}])
    assert judge(run, "--today", "2026-03-31") == 0
    assert "RETIRED  GATE-TWO" in capsys.readouterr().out
    assert judge(run, "--today", "2026-04-01") == 9
    assert "expired on 2026-03-31" in capsys.readouterr().out


def test_an_answer_for_nothing_is_a_warning(declared: Toy, judge: Call, capsys: Out) -> None:
    """For a gate that no run knows, and for one that still blocks shipping."""
    policy(declared, retired=[ANSWERED, {**ANSWERED, "gate": "GATE-NOBODY"}])
    status, body = told(capsys, judge, write_run(declared, "a"), "--today", "2026-01-05")
    assert status == 0
    assert sum("delete it" in warning for warning in body["warnings"]) == 2


def test_a_gate_that_the_policy_names_stays_required(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """Whatever its contract says later; and one that is gone is a problem of the policy."""
    second_contract(declared)
    policy(declared, required=["ship_blocking", "GATE-TWO"])
    run = write_run(declared, "a", {"FALSIFY-TWO[device=cpu]": "falsified"})
    _drop(declared, "flipped")
    status, body = told(capsys, judge, run)
    assert (status, body["dropped_gates"]) == (1, [])
    _drop(declared, "deleted")
    assert judge(run) == 2


def test_a_contract_that_a_run_leaves_out_is_not_met(declared: Toy, judge: Call) -> None:
    """Gates come from the checkout, so that a run without them cannot hide them."""
    run = write_run(declared, "a")
    second_contract(declared)
    forget_files()
    assert judge(run) == 5


def test_a_case_that_was_added_since_is_not_met(declared: Toy, judge: Call) -> None:
    """The run knows a single case of the test, and holds that one; the contract has changed too."""
    declare(declared, cases=[{"scale": "full", "matrix": {"device": ["cpu"]}}])
    run = write_run(declared, "a")
    assert judge(run) == 0
    declare(declared)
    assert judge(run) == 8


def test_problems_of_a_contract_stop_the_gate(declared: Toy, judge: Call, capsys: Out) -> None:
    """A contract that cannot be read has no gate that could fail."""
    run = write_run(declared, "a")
    declared.write({"contracts/bad.yaml": "id: C-BAD\nid: C-WORSE\n"})
    assert judge(run) == 2
    assert "bad.yaml:2: key 'id' stands twice" in capsys.readouterr().err


# -- stale ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["toytrainer/constants.py", "toysuite/falsify_toy.py"])
def test_evidence_about_other_files_is_stale(
    declared: Toy, judge: Call, capsys: Out, file: str
) -> None:
    """A comment is enough: files count by their bytes."""
    run = write_run(declared, "a")
    path = declared.root / file
    path.write_text(path.read_text() + "# later\n")
    forget_files()
    status, body = told(capsys, judge, run)
    assert (status, body["gates"][0]["status"]) == (8, "STALE")
    assert "the files it depends on are not those of run a" in body["gates"][0]["why"][0]
    assert any("foreign checkout" in warning for warning in body["warnings"])


def test_a_changed_defect_stales_its_teeth_only(declared: Toy, judge: Call, capsys: Out) -> None:
    """And that blocks: nobody knows whether it would still be caught."""
    run = write_run(declared, "a")
    path = declared.root / "toysuite/defects/faults.py"
    path.write_text(path.read_text() + "# later\n")
    forget_files()
    status, body = told(capsys, judge, run)
    assert status == 8
    assert body["gates"][0]["why"][0].startswith(TEETH_KEY)
    assert not any("foreign" in warning for warning in body["warnings"])


def test_a_verdict_about_older_files_that_failed_is_still_a_failure(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """Editing a file is no way out of FALSIFIED; a run that holds is."""
    run = write_run(declared, "a", {CPU_KEY: "falsified"})
    path = declared.root / "toytrainer/constants.py"
    path.write_text(path.read_text() + "# later\n")
    forget_files()
    status, body = told(capsys, judge, run)
    assert status == 1
    assert any("nobody ran it since" in why for why in body["gates"][0]["why"])
    assert judge(run, write_run(declared, "b")) == 0


def test_what_did_not_apply_to_older_files_excuses_nothing_now(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """A defect that could not be planted then might be now."""
    policy(declared, subject=OTHER)
    reason = {"kind": "subject", "detail": "patches another trainer", "remedy": ""}
    key = "FALSIFY-TOY-001[device=cpu]!one-less"
    other = "FALSIFY-TOY-001[device=cuda]!one-less"
    away = write_run(
        declared, "a", {key: "not_run", other: "not_run"}, only=[key, other],
        changes={"reason": reason}, subject=OTHER,
    )  # fmt: skip
    kept = [CPU_KEY, CUDA_KEY, TEETH_KEY]
    assert judge(away, write_run(declared, "b", only=kept, subject=OTHER)) == 0
    path = declared.root / "toytrainer/core.py"
    path.write_text(path.read_text() + "# later\n")
    forget_files()
    rest = write_run(declared, "c", only=kept, subject=OTHER)
    status, body = told(capsys, judge, away, rest)
    assert status == 5
    assert "counter-example one-less was not planted" in body["gates"][0]["why"][0]


@pytest.mark.parametrize(
    ("subject", "defect", "code"),
    [
        ("toy", "one-less", 5),
        ("toy", "one-more", 5),
        (OTHER, "one-more", 5),
        (OTHER, "one-less", 0),
    ],
)
def test_a_defect_is_not_declared_away(
    declared: Toy, judge: Call, capsys: Out, subject: str, defect: str, code: int
) -> None:
    """Only a defect of the suite's own trainer may find nothing to alter, in another subject."""
    policy(declared, subject=subject)
    entries = open_checkout(declared.suite).entries
    away = [key for key, entry in entries.items() if entry.defect == defect]
    reason = {"kind": "subject", "detail": "does not apply", "remedy": ""}
    runs = [
        write_run(declared, "a", dict.fromkeys(away, "not_run"), only=away, subject=subject,
                  changes={"reason": reason}),
        write_run(declared, "b", only=entries.keys() - {*away}, subject=subject),
    ]  # fmt: skip
    status, body = told(capsys, judge, *runs)
    assert status == code
    said = f"counter-example {defect} was not planted" in " ".join(body["gates"][0]["why"])
    assert said is bool(code)
    assert any("does not apply to a subject" in w for w in body["warnings"]) is bool(code)


def test_the_base_is_the_checkout_that_is_judged(
    declared: Toy, judge: Call, tmp_path: Path
) -> None:
    """Not the one that is installed; an equal copy is as good."""
    run = write_run(declared, "a")
    copy = declared.copy(tmp_path / "copy")
    assert judge(run, "--base", copy.root) == 0
    for file in ("toytrainer/constants.py", "toysuite/defects/faults.py"):
        before = (copy.root / file).read_text()
        (copy.root / file).write_text(before + "# later\n")
        forget_files()
        assert judge(run, "--base", copy.root) == 8
        assert judge(run) == 0
        (copy.root / file).write_text(before)
        forget_files()
    with pytest.raises(SuiteError, match="the suite toy is not in it"):
        judge(run, "--base", tmp_path)


def test_a_subject_whose_files_are_unknown_blocks_with_words(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """Nobody can say which files its rows are about."""
    policy(declared, subject="elsewhere.adapter:Theirs")
    run = write_run(declared, "a", subject="elsewhere.adapter:Theirs")
    status, body = told(capsys, judge, run)
    assert status == 8
    assert "of unknown source: subject elsewhere.adapter:Theirs" in body["gates"][0]["why"][0]
    assert body["gates"][0]["what_to_do"] == ["judge it where the subject's files are"]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"suite": "theirs"}, "it is of the suite theirs"),
        ({"subject": "other"}, "it is about other, the policy is about toy"),
    ],
)
def test_runs_of_other_suites_and_subjects_do_not_count(
    declared: Toy, judge: Call, capsys: Out, header: dict[str, str], words: str
) -> None:
    """What another trainer was seen to do says nothing of this one."""
    status, body = told(capsys, judge, write_run(declared, "a", **header))
    assert status == 5
    assert any(words in warning for warning in body["warnings"])


def test_a_subject_may_be_spelled_out(declared: Toy, judge: Call) -> None:
    """Short name and MODULE:ATTRIBUTE are one subject."""
    assert judge(write_run(declared, "a", subject="toysuite.adapter:Toy")) == 0


def test_a_run_without_a_verdict_is_not_called_foreign(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """It says nothing about any files."""
    status, body = told(
        capsys, judge, write_run(declared, "a", {CPU_KEY: "not_run"}, only=[CPU_KEY])
    )
    assert (status, body["warnings"]) == (5, [])


# -- several runs -----------------------------------------------------------------------------


def test_lanes_make_one_gate(declared: Toy, judge: Call) -> None:
    """A CPU run and a GPU run, neither of which is enough."""
    cuda = [CUDA_KEY, *(f"{CUDA_KEY}!{defect}" for defect in ("one-more", "one-less"))]
    cpu = [CPU_KEY, TEETH_KEY, f"{CPU_KEY}!one-less"]
    one, other = write_run(declared, "a", only=cpu), write_run(declared, "b", only=cuda)
    assert (judge(one), judge(other)) == (5, 5)
    assert judge(one, other) == 0


@pytest.mark.parametrize("newer", ["held", "falsified"])
def test_verdicts_that_differ_about_the_same_files_block(
    declared: Toy, judge: Call, capsys: Out, newer: str
) -> None:
    """Running until it holds is no way; both runs are named."""
    older = {"held": "falsified", "falsified": "held"}[newer]
    one = write_run(declared, "a", {CPU_KEY: older})
    two = write_run(declared, "b", {CPU_KEY: newer}, started="2026-01-03T08:00:00.000000Z")
    status, body = told(capsys, judge, one, two)
    (decision,) = body["gates"]
    assert (status, decision["status"]) == (9, "FALSIFIED")
    conflict = {"key": CPU_KEY, "outcomes": ["falsified", "held"], "runs": ["a", "b"]}
    assert decision["conflicts"] == [conflict]
    assert decision["why"][0] == f"{CPU_KEY}: falsified and held about the same files, in runs a, b"


def test_teeth_that_bit_once_only_are_a_conflict(declared: Toy, judge: Call) -> None:
    """A defect caught in one run of two."""
    runs = [write_run(declared, "a"), write_run(declared, "b", {TEETH_KEY: "survived"})]
    assert judge(*runs) == 9


def test_a_plain_failure_is_worse_than_a_conflict(declared: Toy, judge: Call) -> None:
    """In the same gate, and in another."""
    one = write_run(declared, "a", {CPU_KEY: "falsified", CUDA_KEY: "falsified"})
    two = write_run(declared, "b", {CUDA_KEY: "falsified"})
    assert judge(one, two) == 1


def test_a_conflict_of_older_files_is_over(declared: Toy, judge: Call) -> None:
    """A verdict about the present files settles it."""
    runs = [write_run(declared, "a"), write_run(declared, "b", {CPU_KEY: "falsified"})]
    path = declared.root / "toytrainer/constants.py"
    path.write_text(path.read_text() + "# later\n")
    forget_files()
    assert judge(*runs, write_run(declared, "c")) == 0


def test_a_run_that_is_given_twice_counts_once(declared: Toy, judge: Call, capsys: Out) -> None:
    """And the gate says so."""
    run = write_run(declared, "a")
    status, body = told(capsys, judge, run, run / "run.jsonl")
    assert (status, len(body["runs"])) == (0, 1)
    assert "was given twice; it counts once" in body["warnings"][0]


# -- the policy's conditions ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "condition", "code", "words"),
    [
        ("cuda", {"card": "NVIDIA H100*"}, 0, ""),
        ("cuda", {"card": "NVIDIA A100*"}, 5, "card NVIDIA H100 80GB HBM3 is not NVIDIA A100*"),
        ("cuda", {"compute_capability": ">=9"}, 0, ""),
        ("cuda", {"compute_capability": ">=9.1"}, 5, "compute capability 9.0 is not >=9.1"),
        ("cuda", {"torch": ">=2.11,<2.12"}, 0, ""),
        ("cuda", {"torch": ">=2.12"}, 5, "torch 2.11.0 is not >=2.12"),
        ("cuda", {"driver": ">=580,<590"}, 0, ""),
        ("cuda", {"driver": ">=590"}, 5, "driver 580.159.04 is not >=590"),
        ("cpu", {"torch": ">=2.13"}, 0, ""),
        ("cpu", {"torch": "<2.13"}, 5, "torch 2.13.0+cpu is not <2.13"),
    ],
)
def test_rows_count_where_the_policy_wants_them_measured(
    declared: Toy,
    judge: Call,
    capsys: Out,
    device: str,
    condition: dict[str, str],
    code: int,
    words: str,
) -> None:
    """Each condition of an environment, met and not met, and only for rows of its device."""
    policy(declared, defaults={"environments": {device: condition}})
    status, body = told(capsys, judge, write_run(declared, "a"))
    assert status == code
    assert words in " ".join(body["gates"][0]["why"])


@pytest.mark.parametrize(
    ("version", "wanted", "code"),
    [
        ("2.11.0a0+ab12cd34ef.nv26.2", ">=2.11", 0),
        ("2.11.0a0+ab12cd34ef.nv26.2", ">=2.11,<2.12", 0),
        ("2.12.0a0", ">=2.11,<2.12", 5),
        ("2.11.0a0", "<2.11", 5),
        ("2.10.0a0", ">=2.11", 5),
        ("2.11.0a0", ">2.11", 5),
    ],
)
def test_a_pre_release_counts_as_the_version_that_it_names(
    declared: Toy, judge: Call, version: str, wanted: str, code: int
) -> None:
    """Images of vendors bring no other; it is still not what came before that version."""
    policy(declared, defaults={"environments": {"cuda": {"torch": wanted}}})
    cuda = {**H100, "packages": {"torch": version}}
    assert judge(write_run(declared, "a", environments={"cuda": cuda})) == code


def test_a_default_lane_that_says_nothing_of_a_gate_is_a_warning(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """`lanes: [cuda]` asks nothing of a gate without a case there; a rule of its own does."""
    second_contract(declared)
    policy(declared, defaults={"lanes": ["cuda"]})
    run = write_run(declared, "a")
    status, body = told(capsys, judge, run)
    assert status == 0
    (warning,) = body["warnings"]
    assert "ask for cuda, which says nothing of required gate GATE-TWO: no case there" in warning
    rule = {"gate": "GATE-TWO", "lanes": ["cpu"]}
    policy(declared, defaults={"lanes": ["cuda"]}, gates=[rule])
    assert told(capsys, judge, run)[1]["warnings"] == []


def test_a_version_that_cannot_be_read_is_none_that_is_wanted(declared: Toy, judge: Call) -> None:
    """Nor is a driver that nobody recorded."""
    policy(declared, defaults={"environments": {"cuda": {"driver": ">=1"}}})
    for driver in ("unknown", None):
        run = write_run(
            declared, f"run-{driver}", environments={"cuda": {**H100, "driver": driver}}
        )
        assert judge(run) == 5


def test_every_card_of_an_environment_has_to_fit(declared: Toy, judge: Call) -> None:
    """The one that was used need not be the first."""
    policy(declared, defaults={"environments": {"cuda": {"card": "*H100*"}}})
    (card,) = H100["gpus"]
    mixed = {**H100, "gpus": [card, {**card, "name": "Another Card"}]}
    assert judge(write_run(declared, "a", environments={"cuda": mixed})) == 5


def test_bad_news_from_an_environment_that_does_not_count_is_told(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """It decides nothing, and nobody can say they did not know."""
    policy(declared, defaults={"environments": {"cpu": {"torch": ">=2.13"}}})
    old = {"cpu": {**CPU, "packages": {"torch": "2.11.0"}}}
    bad = write_run(declared, "a", {CPU_KEY: "falsified"}, environments=old)
    status, body = told(capsys, judge, bad, write_run(declared, "b"))
    assert status == 0
    said = f"{CPU_KEY}: falsified, and yet not counted, in run a: torch 2.11.0 is not >=2.13"
    assert said in body["warnings"]


def test_a_rule_of_one_gate_stands_over_the_defaults(declared: Toy, judge: Call) -> None:
    """Field by field."""
    second_contract(declared)
    run = write_run(declared, "a")
    wanted = {"cpu": {"torch": ">=3"}}
    policy(declared, defaults={"environments": wanted})
    assert judge(run) == 5
    own = {"gate": GATE, "environments": {"cpu": {"torch": ">=2"}}}
    policy(declared, gates=[own, {"gate": "GATE-TWO", "environments": wanted}])
    assert judge(run) == 5
    policy(declared, defaults={"environments": wanted}, gates=[own, {**own, "gate": "GATE-TWO"}])
    assert judge(run) == 0


def test_what_a_rule_does_not_say_the_defaults_do(declared: Toy, judge: Call) -> None:
    """The other device's environment, and the lanes."""
    run = write_run(declared, "a")
    rule = {"gate": GATE, "environments": {"cpu": {"torch": ">=2"}}}
    policy(declared, defaults={"environments": {"cuda": {"card": "Z"}}}, gates=[rule])
    assert judge(run) == 5
    declare(declared, cases=PARTIAL)
    run = write_run(declared, "b", {CUDA_KEY: "not_run"})
    rule = {"gate": GATE, "allows_partial": True}
    policy(declared, defaults={"lanes": ["cuda"]}, gates=[rule])
    assert judge(run) == 5
    policy(declared, gates=[rule])
    assert judge(run) == 0


PARTIAL = [
    {"scale": "full", "matrix": {"device": ["cuda"]}},
    {"scale": "reduced", "matrix": {"device": ["cpu"]}},
]


@pytest.mark.parametrize(
    ("contract_allows", "policy_allows", "code"),
    [
        (False, None, 5),
        (True, None, 0),
        (True, False, 5),
        (False, True, 0),
    ],
)
def test_partial_is_enough_where_contract_or_policy_say_so(
    declared: Toy, judge: Call, contract_allows: bool, policy_allows: bool | None, code: int
) -> None:
    """The policy has the last word."""
    test = falsification(
        "FALSIFY-TOY-001",
        "falsify_toy.falsify_sum",
        invariants=["INV-TOY-001"],
        cases=PARTIAL,
        counter_examples=[
            {"defect": "one-more", "where": {"device": "cpu"}},
            {"defect": "one-less", "where": {"device": "cpu"}},
        ],
    )
    own = {
        "id": GATE,
        "rule": "sums add up",
        "binds": ["INV-TOY-001"],
        "ship_blocking": True,
        "allows_partial": contract_allows,
    }
    declared.contract(contract(gates=[own], falsification_tests=[test]))
    forget_files()
    if policy_allows is not None:
        policy(declared, gates=[{"gate": GATE, "allows_partial": policy_allows}])
    assert judge(write_run(declared, "a", {CUDA_KEY: "not_run"})) == code


def test_a_lane_has_to_hold_where_the_policy_names_it(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """Even where PARTIAL is enough otherwise."""
    declare(declared, cases=PARTIAL)
    run = write_run(declared, "a", {CUDA_KEY: "not_run"})
    policy(declared, defaults={"allows_partial": True})
    assert judge(run) == 0
    policy(declared, defaults={"allows_partial": True, "lanes": ["cuda"]})
    status, body = told(capsys, judge, run)
    assert status == 5
    assert body["gates"][0]["why"] == [
        "FALSIFY-TOY-001: nothing held on cuda, on which the policy asks for it"
    ]
    assert judge(write_run(declared, "b")) == 0


@pytest.mark.parametrize(
    ("today", "code"), [("2026-02-01", 0), ("2026-02-02", 8), ("2025-12-31", 8)]
)
def test_old_evidence_is_stale_where_the_policy_says_how_old(
    declared: Toy, judge: Call, capsys: Out, today: str, code: int
) -> None:
    """To the day; a row from the future has no age."""
    run = write_run(declared, "a")
    assert judge(run, "--today", today) == 0
    policy(declared, defaults={"max_age_days": 30})
    status, body = told(capsys, judge, run, "--today", today)
    assert status == code
    if code:
        reason = "31 days old in run a, the policy allows 30"
        ahead = "dated 2 days ahead in run a"
        assert (reason if today > "2026" else ahead) in body["gates"][0]["why"][0]


@pytest.mark.parametrize(
    ("required", "code"), [(["ship_blocking"], 0), (["all"], 5), ([GATE], 0), (["GATE-TWO"], 5)]
)
def test_the_policy_says_which_gates_are_required(
    declared: Toy, judge: Call, required: list[str], code: int
) -> None:
    """Two gates, of which one is not ship-blocking and has not run."""
    second_contract(declared, ship_blocking=False)
    policy(declared, required=required)
    assert judge(write_run(declared, "a", {"FALSIFY-TWO[device=cpu]": "not_run"})) == code


def test_a_ship_blocking_gate_that_is_not_required_is_named(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """Leaving it out is a decision that everybody should see; so is what it stands at."""
    second_contract(declared)
    policy(declared, required=["GATE-TWO"])
    assert judge(write_run(declared, "a", {CPU_KEY: "falsified"})) == 0
    said = capsys.readouterr().out
    assert f"warning: the policy does not require ship-blocking gate {GATE}" in said
    assert f"Not required, and not met: {GATE} FALSIFIED." in said


# -- waivers ----------------------------------------------------------------------------------

ANSWERED = {"gate": GATE, "reason": "the GPU is away", "owner": "Ada", "expires": "2026-03-31"}
WAIVER = {**ANSWERED, "status": "FALSIFIED"}


def test_a_waiver_lets_a_gate_pass_and_hides_nothing(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """The status, the reasons and the remedy are there, and the waiver beside them."""
    policy(declared, waivers=[WAIVER])
    run = write_run(declared, "a", {CPU_KEY: "falsified"})
    assert judge(run, "--today", "2026-03-31") == 0
    said = capsys.readouterr().out
    assert "WAIVED   FALSIFIED               GATE-TOY-001" in said
    assert "    waiver  Ada, through 2026-03-31: the GPU is away" in said
    assert f"{CPU_KEY} was falsified" in said
    assert said.endswith("GATE MET: 1 required gate, 1 of them by a waiver only.\n")


def test_an_expired_waiver_fails(declared: Toy, judge: Call, capsys: Out) -> None:
    """With the gate's own exit status, from the day after."""
    policy(declared, waivers=[WAIVER])
    run = write_run(declared, "a", {CPU_KEY: "falsified"})
    status, body = told(capsys, judge, run, "--today", "2026-04-01")
    assert status == 1
    assert body["gates"][0]["why"][-1] == "its waiver by Ada expired on 2026-03-31"
    assert body["gates"][0]["waiver"]["in_force"] is False


@pytest.mark.parametrize(
    ("excused", "outcome", "code"),
    [
        ("PENDING", "not_run", 0),
        ("PENDING", "falsified", 1),
        ("VACUOUS", "falsified", 1),
        ("FALSIFIED", "not_run", 0),
    ],
)
def test_a_waiver_excuses_its_status_and_better(
    declared: Toy, judge: Call, excused: str, outcome: str, code: int
) -> None:
    """One that was given for a missing machine does not excuse a wrong trainer."""
    policy(declared, waivers=[{**WAIVER, "status": excused}])
    run = write_run(declared, "a", {CPU_KEY: outcome})
    assert judge(run, "--today", "2026-01-05") == code


@pytest.mark.parametrize(
    ("waiver", "words"),
    [
        (WAIVER, "the gate is met (DISCHARGED); delete it"),
        ({**WAIVER, "expires": "2020-01-01"}, "the gate is met (DISCHARGED); delete it"),
        ({**WAIVER, "gate": "GATE-GONE"}, "no contract declares that gate"),
        ({**WAIVER, "gate": "GATE-TWO"}, "the policy does not require the gate; delete it"),
    ],
)
def test_a_waiver_for_nothing_is_a_warning(
    declared: Toy, judge: Call, capsys: Out, waiver: dict[str, str], words: str
) -> None:
    """Met already, not there, or not asked for."""
    second_contract(declared, ship_blocking=False)
    policy(declared, waivers=[waiver])
    run = write_run(declared, "a", {"FALSIFY-TWO[device=cpu]": "not_run"})
    status, body = told(capsys, judge, run, "--today", "2026-01-05")
    assert status == 0
    assert any(words in warning for warning in body["warnings"])


# -- evidence that is not believed ------------------------------------------------------------


def test_a_refused_run_is_judged_by_nobody(declared: Toy, judge: Call, capsys: Out) -> None:
    """Whatever else was given; in JSON too."""
    good, bad = write_run(declared, "a"), write_run(declared, "b")
    file = bad / "run.jsonl"
    file.write_text(file.read_text().replace('"held"', '"caught"', 1))
    status, body = told(capsys, judge, good, bad)
    assert status == 7
    assert body["exit_code"] == 7 and "refused" in body


def test_a_bound_that_was_softened_in_the_run_is_refused(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """The contract's own constants and tolerances are what the measures are held against."""
    claims = [{"id": "sum", "expr": "x <= limit", "why": "one and two"}]
    body = {"constants": {"limit": {"value": 3, "unit": "1", "why": "the sum of one and two"}}}
    test = falsification(
        "FALSIFY-TOY-001", "falsify_toy.falsify_sum", invariants=["INV-TOY-001"], claims=claims
    )
    declared.contract(contract(falsification_tests=[test], **body))
    forget_files()
    for limit, code in ((3, 0), (5, 7)):
        outcomes = {"falsified": limit < 4}
        comparison = {
            "claim": "sum", "text": "x <= limit", "op": "<=", "observed": 3.0, "bound": limit,
            "unit": "1", "slack": limit - 3.0, "margin": (limit - 3.0) / limit, "holds": True,
        }  # fmt: skip
        run = write_run(
            declared, f"run-{limit}", only=[CPU_KEY], changes={"comparisons": [comparison]}
        )
        policy(declared, waivers=[{**WAIVER, "status": "PENDING"}])
        assert judge(run, "--today", "2026-01-05") == code, outcomes
    assert "refused (NotOfThisContract)" in capsys.readouterr().err


def test_measures_of_another_type_are_refused(declared: Toy) -> None:
    """A list where the contract declares a number."""
    declare(declared, claims=[{"id": "sum", "expr": "abs(x) == 3", "why": "one and two"}])
    run = read_run(write_run(declared, "a", only=[CPU_KEY]))
    (row,) = run.rows
    odd = replace(run, rows=(replace(row, measures={"x": [3.0]}),))
    with pytest.raises(NotOfThisContract, match="not of the declared types"):
        recheck(odd, open_checkout(declared.suite), {CPU_KEY: row.source_id})


def test_a_run_with_milder_claims_of_its_own_is_refused(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """Its contract line is not that of the files that its rows are said to be about."""
    strict = {p: p.read_text() for p in (declared.root / "contracts").iterdir()}
    ids = write_run(declared, "a").joinpath("run.jsonl").read_text()
    source = json.loads(next(x for x in ids.splitlines() if '"type":"row"' in x))["source_id"]
    declare(declared, claims=[{"id": "sum", "expr": "x >= 0", "why": "sums are positive"}])
    mild = write_run(declared, "b", only=[CPU_KEY], changes={"source_id": source})
    for path, text in strict.items():
        path.write_text(text)
    forget_files()
    assert judge(mild) == 7
    assert "other claims, cases or defects" in capsys.readouterr().err


def test_an_unsigned_run_is_refused_where_signatures_are_required(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """And taken where they are not."""
    run = write_run(declared, "a")
    assert judge(run, "--require-signed") == 7
    assert "refused (Unsigned)" in capsys.readouterr().err
    assert judge(run) == 0


def test_a_signature_of_somebody_trusted_is_enough(
    declared: Toy, judge: Call, capsys: Out, tmp_path: Path
) -> None:
    """Of the one who was named, where somebody was; and of every run that counts."""
    keys = pytest.importorskip("aprverify.trust.keys")
    pytest.importorskip("cryptography")
    run, other = write_run(declared, "a"), write_run(declared, "b")
    public = keys.generate_key(tmp_path / "key")
    declared.write(
        {"trusted-keys.yaml": f"identities:\n  - {{name: ada, keys: ['{public.text}']}}\n"}
    )
    sign_run(read_run(run), keys.load_key(tmp_path / "key"), statement)
    status, body = told(capsys, judge, run, "--require-signed")
    assert (status, body["runs"][0]["signed_by"]) == (0, "ada")
    assert body["runs"][0]["key_id"] == public.key_id
    capsys.readouterr()
    judge(run, "--require-signed")
    trusted = declared.root / "trusted-keys.yaml"
    assert capsys.readouterr().out.splitlines()[:2] == [
        "Not shown: subjects other than toy.",
        f"Run a is signed by ada: verified against its key {public.key_id} in {trusted}.",
    ]
    assert judge(run, other) == 0
    assert capsys.readouterr().out.startswith(
        "Not shown: who made 2 runs (1 unsigned, signature present at 1 but not checked: "
        "--require-signed does)"
    )
    _, body = told(capsys, judge, run, other)
    assert [one["signature"] for one in body["runs"]] == ["not checked", "none"]
    assert judge(run, "--require-signed", "ada") == 0
    assert judge(run, "--require-signed", "bob") == 7
    assert judge(run, other, "--require-signed") == 7
    declared.write({"none.yaml": "identities: []\n"})
    assert judge(run, "--require-signed", "--trusted", declared.root / "none.yaml") == 7


# -- what is asked for ------------------------------------------------------------------------


def test_a_policy_that_requires_nothing_is_a_problem(
    declared: Toy, judge: Call, capsys: Out
) -> None:
    """A gate that cannot fail is none."""
    body = contract()
    body["gates"][0]["ship_blocking"] = False
    declared.contract(body)
    forget_files()
    assert judge() == 2
    assert "no gate is required, so that nothing could fail" in capsys.readouterr().err


def test_an_unknown_day_is_a_usage_error(judge: Call) -> None:
    """Exit status 2, as argparse has it."""
    with pytest.raises(SystemExit) as error:
        judge("--today", "2026-02-30")
    assert error.value.code == 2


def test_the_exit_codes_are_in_the_help(declared: Toy, capsys: Out) -> None:
    """Every one that there is."""
    with pytest.raises(SystemExit):
        command(gate, "gate", declared.suite, ["--help"])
    said = capsys.readouterr().out
    for code in (0, 1, 2, 3, 4, 5, 7, 8, 9):
        assert f"\n  {code}  " in said


def test_the_same_input_makes_the_same_output(declared: Toy, judge: Call, capsys: Out) -> None:
    """Whatever the order of the runs, in their gates, reasons and remedies."""
    runs = [
        write_run(declared, "a", {CPU_KEY: "falsified"}),
        write_run(declared, "b", {TEETH_KEY: "survived"}),
    ]
    _, one = told(capsys, judge, *runs, "--today", "2026-01-05")
    _, other = told(capsys, judge, *runs[::-1], "--today", "2026-01-05")
    assert one["gates"] == other["gates"]


def test_a_hundred_contracts_and_five_thousand_rows_take_two_seconds(
    declared: Toy, judge: Call
) -> None:
    """A tenth of what a large project has. CPU time, so that busy neighbours do not count."""
    (declared.root / "contracts/toy.yaml").unlink()
    for n in range(100):
        name = f"TOY-{n:03}"
        declared.contract(
            contract(
                f"C-{name}",
                invariants=[{"id": f"INV-{name}", "rule": "sums add up"}],
                gates=[
                    {
                        "id": f"GATE-{name}",
                        "rule": "sums add up",
                        "binds": [f"INV-{name}"],
                        "ship_blocking": True,
                    }
                ],
                falsification_tests=[
                    falsification(
                        f"FALSIFY-{name}",
                        "falsify_toy.falsify_sum",
                        invariants=[f"INV-{name}"],
                        cases=[
                            {
                                "scale": "full",
                                "matrix": {"device": ["cpu"], "seed": list(range(48))},
                            }
                        ],
                    )
                ],
            ),
            f"{name}.yaml",
        )
    run = write_run(declared, "a")
    forget_files()
    start = time.process_time()
    assert judge(run) == 0
    assert time.process_time() - start < 2.0


def test_no_policy_file_is_needed_and_one_that_is_named_is(declared: Toy, judge: Call) -> None:
    """A name that leads nowhere is no licence to do without."""
    run = write_run(declared, "a")
    assert judge(run) == 0
    assert judge(run, "--policy", declared.root / "missing.yaml") == 2
