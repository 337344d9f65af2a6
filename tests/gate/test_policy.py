"""A policy is linted like a contract: every problem names file and line, and nothing is judged."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Toy

from .conftest import Call, declare
from .evidence import write_run

Out = pytest.CaptureFixture[str]
HEAD = "policy: aprverify-policy/1\n"
WAIVER = (
    "waivers:\n"
    "  - {gate: GATE-TOY-001, reason: r, owner: o, expires: 2026-03-31, status: PENDING}\n"
)
RETIRED = "retired:\n  - {gate: GATE-OLD, reason: r, owner: o, expires: 2026-03-31}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: the file is empty"),
        ("- a\n", ":1: a policy is a mapping"),
        ("{}\n", ":1: policy: 'policy' is a required property"),
        ("policy: aprverify-policy/2\n", ":1: policy: 'aprverify-policy/1' was expected"),
        (f"{HEAD}require: [all]\n", ":2: policy: Additional properties"),
        (f"{HEAD}required: []\n", ":2: required: []"),
        (f"{HEAD}required: [all]\nrequired: [all]\n", ":3: key 'required' stands twice"),
        (f"{HEAD}required: [GATE-TOY-002]\n", ":2: no contract here declares the gate"),
        (f"{HEAD}gates:\n  - gate: GATE-TOY-002\n", ":3: no contract here declares the gate"),
        (
            f"{HEAD}gates:\n  - gate: GATE-TOY-001\n  - gate: GATE-TOY-001\n",
            ":4: a second rule for GATE-TOY-001",
        ),
        (
            f"{HEAD}gates:\n  - gate: GATE-TOY-001\n    lanes: [cuda]\n",
            ":4: GATE-TOY-001 has no case on cuda: it could never be met",
        ),
        (f"{HEAD}defaults:\n  lanes: [tpu]\n", ":3: defaults.lanes.0: 'tpu' is not one of"),
        (f"{HEAD}defaults: {{max_age_days: 0}}\n", ":2: defaults.max_age_days: 0 is less than"),
        (
            f"{HEAD}defaults:\n  environments:\n    cpu:\n      torch: newest\n",
            ":5: torch: 'newest' is no range of versions",
        ),
        (
            f"{HEAD}defaults:\n  environments:\n    cuda:\n      driver: ' '\n",
            ":5: driver: ' ' is no range of versions",
        ),
        (f"{HEAD}defaults:\n  environments:\n    cpu: {{card: x}}\n", ":4: defaults.environments"),
        (
            f"{HEAD}{WAIVER}{WAIVER.partition(chr(10))[2]}",
            ":4: a second waiver for GATE-TOY-001",
        ),
        (f"{HEAD}{WAIVER}".replace("03-31", "02-30"), ":3: expires: there is no day 2026-02-30"),
        (f"{HEAD}{WAIVER}".replace("2026-03-31", "soon"), ":3: waivers.0.expires: 'soon'"),
        (f"{HEAD}{WAIVER}".replace("reason: r, ", ""), ":3: waivers.0: 'reason' is a required"),
        (f"{HEAD}{WAIVER}".replace("owner: o, ", ""), ":3: waivers.0: 'owner' is a required"),
        (f"{HEAD}{WAIVER}".replace("owner: o", "owner: ' '"), ":3: waivers.0.owner: ' '"),
        (
            f"{HEAD}{WAIVER}".replace(", status: PENDING", ""),
            ":3: waivers.0: 'status' is a required",
        ),
        (
            f"{HEAD}{WAIVER}".replace("2026-03-31", "2027-01-07"),
            ":3: expires: 2027-01-07 is more than 366 days ahead of 2026-01-05",
        ),
        (f"{HEAD}{RETIRED}{RETIRED.partition(chr(10))[2]}", ":4: a second entry for GATE-OLD"),
        (f"{HEAD}{RETIRED}".replace("reason: r, ", ""), ":3: retired.0: 'reason' is a required"),
        (f"{HEAD}{RETIRED}".replace("2026-03", "2028-03"), ":3: expires: 2028-03-31 is more than"),
    ],
)
def test_each_problem_of_a_policy_is_named_with_its_line(
    declared: Toy, judge: Call, capsys: Out, text: str, said: str
) -> None:
    """Exit status 2, in words and as JSON; the evidence is not even looked at."""
    declare(declared, cases=[{"scale": "full", "matrix": {"device": ["cpu"]}}])
    declared.write({"gate-policy.yaml": text})
    assert judge("nowhere", "--json", "--today", "2026-01-05") == 2
    out, err = capsys.readouterr()
    assert f"gate-policy.yaml{said}" in err
    assert "fix: " in err
    (problem,) = json.loads(out)["problems"]
    assert problem["line"] == int(said.split(":")[1])


def test_a_policy_without_problems_has_none(declared: Toy, judge: Call, capsys: Out) -> None:
    """With every field there is."""
    declared.write(
        {
            "policy.yaml": f"""\
{HEAD}subject: toy
required: [ship_blocking, GATE-TOY-001]
defaults:
  lanes: [cpu]
  environments:
    cpu: {{torch: ">=2.11"}}
    cuda: {{card: "NVIDIA *", compute_capability: ">=8.0", torch: ">=2.11", driver: ">=570"}}
  allows_partial: false
  max_age_days: 90
gates:
  - gate: GATE-TOY-001
    lanes: [cpu, cuda]
    environments:
      cuda: {{card: "*H100*"}}
    allows_partial: false
    max_age_days: 30
{WAIVER.replace("2026-03-31", "2027-01-06")}{RETIRED}"""
        }
    )
    run = write_run(declared, "a")
    arguments = (run, "--policy", declared.root / "policy.yaml", "--today", "2026-01-05", "--json")
    assert judge(*arguments) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["policy"]["path"].endswith("policy.yaml") and len(body["policy"]["sha256"]) == 64
