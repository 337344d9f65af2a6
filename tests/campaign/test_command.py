"""``aprverify campaign`` on a toy suite: what it draws, counts, gives up, and how it ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aprverify.campaign.journal import CAMPAIGN_FILE
from aprverify.campaign.results import Campaign, found_in, read_campaign
from aprverify.campaign.seeds import drawn
from aprverify.commands.campaign import FALSE_ALARM
from aprverify.contract.model import LARGEST_SEED
from aprverify.evidence import verdict
from tests.conftest import Toy, build_toy, contract, falsification

_FALSIFIERS = """
import os

def falsify_seeded(subject, case, measured):
    measured(x=subject.total([1, 2]) + (case.seed % 7) / 70)

def falsify_unread(subject, case, measured):
    measured(x=subject.total([1, 2]))

def falsify_fragile(subject, case, measured):
    ILL
    measured(x=subject.total([1, 2]))
"""
_SUM = [{"id": "sum", "expr": "x <= LIMIT and x >= 0", "why": "one and two"}]
_SEEDS = {"device": ["cpu"], "size": [1, 2], "seed": [0, 1]}


def _test(identity: str, function: str, limit: float, matrix: dict[str, Any]) -> dict[str, Any]:
    claims = [{**claim, "expr": claim["expr"].replace("LIMIT", str(limit))} for claim in _SUM]
    return falsification(
        identity,
        f"falsify_toy.{function}",
        invariants=["INV-TOY-001"],
        cases=[{"scale": "full", "matrix": matrix}],
        claims=claims,
    )


def _toy(root: Path, limit: float = 4.0, ill: str = "case.seed") -> Toy:
    toy = build_toy(root)
    toy.write({"toysuite/falsify_toy.py": _FALSIFIERS.replace("ILL", ill)})
    tests = [
        _test("FALSIFY-TOY-001", "falsify_seeded", limit, _SEEDS),
        _test("FALSIFY-TOY-002", "falsify_unread", 4.0, _SEEDS),
        _test("FALSIFY-TOY-003", "falsify_fragile", 4.0, _SEEDS),
        _test("FALSIFY-TOY-004", "falsify_unread", 4.0, {"device": ["cpu"]}),
    ]
    toy.contract(contract(falsification_tests=tests))
    return toy


def _run(toy: Toy, *arguments: str, name: str = "campaign") -> subprocess.CompletedProcess[str]:
    place = ("--run-dir", str(toy.root / name)) if "--resume" not in arguments else ()
    command = ("-m", "aprverify", "--suite", "toy", "campaign", "-n", "1", *place, *arguments)
    return toy.process(*command)


def _campaign(toy: Toy, name: str = "campaign") -> Campaign:
    return read_campaign(toy.root / name)


def test_every_case_of_a_seeded_test_gets_seeds_that_no_contract_names(tmp_path: Path) -> None:
    """Evenly over the cases; a test whose seed nobody reads is listed and not counted."""
    toy = _toy(tmp_path / "p")
    done = _run(toy, "--evaluations", "20")
    assert done.returncode == verdict.OK, done.stdout + done.stderr
    campaign = _campaign(toy)
    assert set(campaign.tests) == {f"FALSIFY-TOY-00{n}" for n in (1, 2, 3)}
    by_case: dict[str, int] = {}
    for lot in campaign.lots:
        key = f"{lot['test']}[{lot['case']}]"
        assert all(drawn(key, lot["first"] + i) > LARGEST_SEED for i in range(lot["drawn"]))
        by_case[key] = by_case.get(key, 0) + lot["verdicts"]
    assert by_case["FALSIFY-TOY-001[device=cpu,size=1]"] == 10
    assert by_case["FALSIFY-TOY-001[device=cpu,size=2]"] == 10
    assert by_case["FALSIFY-TOY-002[device=cpu,size=1]"] < 10, "more of the same shows nothing"
    seeded = {one.test: one.seed_read for one in found_in([campaign])}
    assert seeded["FALSIFY-TOY-001"] and not seeded["FALSIFY-TOY-002"]
    report = (toy.root / "campaign" / "report.md").read_text()
    assert report.startswith("**Not shown:**") and "cuda: no campaign ran there" in report
    assert "2 claims reached 20 evaluations" in report
    unread = report.partition("## Seeds that nothing asks for")[2]
    assert "- FALSIFY-TOY-002" in unread and "- FALSIFY-TOY-001" not in unread


def test_the_closest_shave_is_the_worst_of_all_seeds(tmp_path: Path) -> None:
    """With the seed that made it, and with both sides as they were."""
    toy = _toy(tmp_path / "p")
    _run(toy, "FALSIFY-TOY-001", "size:1", "--evaluations", "40")
    (found,) = found_in([_campaign(toy)])
    assert found.shave is not None and found.shave.worst is not None
    worst = found.shave.worst
    key = "FALSIFY-TOY-001[device=cpu,size=1]"
    seeds = [drawn(key, number) for number in range(40)]
    expected = max(seeds, key=lambda seed: seed % 7)
    assert worst.observed == 3 + (expected % 7) / 70 and worst.seed % 7 == expected % 7
    assert len(found.shave.used) == 40


def test_a_false_alarm_has_an_exit_status_and_a_command_that_shows_it_again(
    tmp_path: Path,
) -> None:
    """Every seed with remainder 6 fails; nothing is tried a second time."""
    toy = _toy(tmp_path / "p", limit=3.08)
    done = _run(toy, "FALSIFY-TOY-001", "--evaluations", "30")
    assert done.returncode == FALSE_ALARM, done.stdout + done.stderr
    (found,) = found_in([_campaign(toy)])
    expected = {
        f"FALSIFY-TOY-001[device=cpu,size={size},seed={seed}]"
        for size in (1, 2)
        for seed in (drawn(f"FALSIFY-TOY-001[device=cpu,size={size}]", n) for n in range(15))
        if seed % 7 == 6
    }
    assert set(found.falsified) == expected and expected
    key = sorted(expected)[0]
    assert f"aprverify campaign --again '{key}'" in done.stdout
    again = toy.process("-m", "aprverify", "--suite", "toy", "campaign", "--again", key)
    assert again.returncode == FALSE_ALARM and "FALSIFIED x <= 3.08" in again.stdout
    report = (toy.root / "campaign" / "report.md").read_text()
    assert "## False alarms" in report and key in report
    assert found.upper_bound > len(expected) / 30


def test_a_seed_that_kills_its_process_is_broken_and_the_next_go_on(tmp_path: Path) -> None:
    """It is no verdict, and the report names it."""
    ill = "os._exit(3) if case.seed % 5 == 0 else None"
    toy = _toy(tmp_path / "p", ill=ill)
    done = _run(toy, "FALSIFY-TOY-003", "size:1", "--evaluations", "12")
    assert done.returncode == verdict.BROKEN, done.stdout + done.stderr
    campaign = _campaign(toy)
    broken = [one["seed"] for lot in campaign.lots for one in lot["without_verdict"]]
    assert broken and all(seed % 5 == 0 for seed in broken)
    assert campaign.verdicts == 12
    assert "the worker process died" in (toy.root / "campaign" / "report.md").read_text()


def test_a_campaign_goes_on_where_it_ended(tmp_path: Path) -> None:
    """With other seeds, and in the same file; a half-written line is dropped first."""
    toy = _toy(tmp_path / "p")
    _run(toy, "FALSIFY-TOY-001", "--evaluations", "10")
    file = toy.root / "campaign" / CAMPAIGN_FILE
    before = file.read_bytes()
    file.write_bytes(before + b'{"type": "lot", "te')
    resume = ("--resume", str(toy.root / "campaign"))
    done = _run(toy, "FALSIFY-TOY-001", "--evaluations", "30", *resume)
    assert done.returncode == verdict.OK, done.stdout + done.stderr
    assert file.read_bytes().startswith(before)
    campaign = _campaign(toy)
    assert len(campaign.sessions) == 2 and campaign.verdicts == 30
    (found,) = found_in([campaign])
    assert found.total == 30, "no seed twice"


def test_files_that_changed_begin_a_new_campaign(tmp_path: Path) -> None:
    """One N of two versions would be about neither."""
    toy = _toy(tmp_path / "p")
    _run(toy, "FALSIFY-TOY-001", "--evaluations", "4")
    toy.write({"toysuite/falsify_toy.py": _FALSIFIERS.replace("ILL", "case.seed") + "\n"})
    done = _run(toy, "FALSIFY-TOY-001", "--resume", str(toy.root / "campaign"))
    assert done.returncode == 2 and "changed since" in done.stderr


def test_several_campaigns_make_one_report(tmp_path: Path) -> None:
    """The same seeds count once, others add up, and only the newest version of the files counts."""
    toy = _toy(tmp_path / "p")
    _run(toy, "FALSIFY-TOY-001", "--evaluations", "10", name="one")
    _run(toy, "FALSIFY-TOY-001", "--evaluations", "10", name="same")
    _run(toy, "FALSIFY-TOY-001", "--evaluations", "10", "--first", "5", name="more")
    names = ("one", "same", "more")
    (found,) = found_in([_campaign(toy, name) for name in names])
    assert found.total == 20
    folders = [str(toy.root / name) for name in names]
    command = ("-m", "aprverify", "--suite", "toy", "campaign", "--report", *folders)
    done = toy.process(*command)
    assert (
        done.returncode == verdict.OK and "| FALSIFY-TOY-001 | sum | 20 | 0 | 0.15 |" in done.stdout
    )
    toy.write({"toysuite/falsify_toy.py": _FALSIFIERS.replace("ILL", "case.seed") + "\n"})
    _run(toy, "FALSIFY-TOY-001", "--evaluations", "4", name="newer")
    (found,) = found_in([_campaign(toy, name) for name in (*names, "newer")])
    assert found.total == 4


def test_time_that_is_up_leaves_what_was_done(tmp_path: Path) -> None:
    """What did not reach its number is listed as not done, and so is what was never begun."""
    toy = _toy(tmp_path / "p")
    names = ("FALSIFY-TOY-001", "FALSIFY-TOY-003")
    done = _run(toy, *names, "--evaluations", "1000000", "--budget", "2")
    assert done.returncode == verdict.OK, done.stderr
    assert [end["why"] for end in _campaign(toy).ends] == ["budget"]
    report = (toy.root / "campaign" / "report.md").read_text()
    assert "## Fewer than 1000000 evaluations: not done" in report
    assert "evaluations and more" not in report
    found = found_in([_campaign(toy)])
    assert {one.test for one in found} == set(names), "also what was never begun"
    assert "| FALSIFY-TOY-003 | sum | " in report


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("FALSIFY-TOY-01",), "did you mean FALSIFY-TOY-00"),
        (("FALSIFY-TOY-004",), "no test with a seed"),
        (("--device", "cuda"), "no CUDA GPU is visible"),
        (("-n", "0"), "give a number from 1"),
        (("--again", "FALSIFY-TOY-001[device=cpu,size=1]"), "seed=NUMBER"),
    ],
)
def test_bad_usage_is_told_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    """Status 2, and nothing is written."""
    toy = _toy(tmp_path / "p")
    done = _run(toy, *arguments)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert not (toy.root / "campaign").exists()


def _damaged(line: bytes, change: dict[str, Any]) -> bytes:
    return json.dumps({**json.loads(line), **change}).encode()


def test_a_campaign_that_was_changed_is_refused(tmp_path: Path) -> None:
    """Another count, a line less, a cut: each by its name, and status 7."""
    toy = _toy(tmp_path / "p")
    _run(toy, "FALSIFY-TOY-001", "--evaluations", "4")
    file = toy.root / "campaign" / CAMPAIGN_FILE
    good = file.read_bytes()
    lines = good.split(b"\n")
    lot = next(i for i, line in enumerate(lines) if b'"type":"lot"' in line)
    attacks = {
        "BrokenChain": [*lines[:lot], _damaged(lines[lot], {"seconds": 9.0}), *lines[lot + 1 :]],
        "DamagedLine": lines[:-1],
        "SchemaViolation": [_damaged(lines[0], {"seeds": 3}), *lines[1:]],
        "CountMismatch": [*lines[:lot], _damaged(lines[lot], {"verdicts": 900}), *lines[lot + 1 :]],
        "EmptyRun": [],
    }
    # The chain of the last attack is whole, so that the count itself is what is refused.
    for name, changed in attacks.items():
        data = b"\n".join(changed)
        file.write_bytes(_chained(data) if name == "CountMismatch" else data)
        command = ("-m", "aprverify", "--suite", "toy", "campaign", "--report", str(file))
        done = toy.process(*command)
        assert done.returncode == verdict.REFUSED and name in done.stderr, (name, done.stderr)


def _chained(data: bytes) -> bytes:
    import hashlib

    previous, lines = "", []
    for line in data.split(b"\n")[:-1]:
        lines.append(json.dumps({**json.loads(line), "prev": previous}).encode())
        previous = hashlib.sha256(lines[-1]).hexdigest()
    return b"\n".join(lines) + b"\n"
