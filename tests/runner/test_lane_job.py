"""The lane's steps, really run on a toy suite, and the gate on what they left."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from aprverify.evidence.reader import read_run
from tests.conftest import Toy
from tests.runner.files import GATE, VERIFY
from tests.runner.job import Job

_TITLE = "title=FALSIFY-TOY-001 falsified"
_WRONG = """
def falsify_sum(subject, case, measured):
    print("::error title=forged::by the trainer")
    measured(x=subject.total([1, 2]) + 1)
"""
_ENDLESS = """
import time

def falsify_sum(subject, case, measured):
    time.sleep(50)
    measured(x=subject.total([1, 2]))
"""


@pytest.fixture
def job(toy: Toy, tmp_path: Path) -> Job:
    """A job in the toy suite's folder."""
    return Job(tmp_path / "job", toy.root, toy.env())


def test_a_lane_that_holds_passes_its_gate(job: Job) -> None:
    """The lane ends with 0 and uploads run and views; the gate after it is met."""
    lane = job.run(VERIFY, lane="cpu", suite="toy", fetch="false")
    assert (lane.status, lane.outputs["exit-code"]) == (0, "0"), lane.log
    assert "cpu-7-1/run.jsonl" in lane.uploads["aprverify-run-cpu.1"]
    assert {"page.html", "junit.xml", "statement.json"} <= lane.uploads["aprverify-views-cpu.1"]
    assert "::error" not in lane.log
    gate = job.run(GATE, suite="toy")
    assert (gate.status, gate.outputs["exit-code"]) == (0, "0"), gate.log
    assert "GATE MET" in gate.log
    assert "## Gate: exit status 0" in job.summary


def test_less_than_everything_reaches_the_command(job: Job) -> None:
    """One lane by itself, up to a cost an entry."""
    lane = job.run(VERIFY, lane="a", suite="toy", fetch="false", only_lane="cpu", dearest="15")
    assert (lane.status, lane.outputs["exit-code"]) == (0, "0"), lane.log
    run = read_run(Path(lane.outputs["run"]))
    assert run.header.command[-3:] == ("--lane", "cpu", "--dearest=15")
    assert run.header.selection.lane == "cpu"


def test_a_lane_that_is_falsified_fails_and_publishes(toy: Toy, job: Job) -> None:
    """The lane ends with 1, and yet uploads and annotates at the contract's line."""
    toy.write({"toysuite/falsify_toy.py": _WRONG})
    lane = job.run(VERIFY, lane="cpu", suite="toy", fetch="false")
    assert lane.status == 1
    assert re.search(rf"^::error file=contracts/toy.yaml,line=[1-9]\d*,{_TITLE}", lane.log, re.M)
    assert "cpu-7-1/run.jsonl" in lane.uploads["aprverify-run-cpu.1"]
    assert {"page.html", "junit.xml", "statement.json"} <= lane.uploads["aprverify-views-cpu.1"]
    # What the trainer prints gives the job no commands: they are stopped by a token nobody guesses.
    token = re.search(r"^::stop-commands::([0-9a-f-]{36})$", lane.log, re.M)
    assert token is not None
    within = lane.log[token.end() : lane.log.index(f"::{token[1]}::")]
    assert within.count("title=forged") == lane.log.count("\n::error title=forged") > 0


def test_a_verdict_may_be_left_to_the_gate(toy: Toy, job: Job) -> None:
    """The lane warns and passes; the gate fails with the verdict and annotates, once."""
    toy.write({"toysuite/falsify_toy.py": _WRONG})
    lane = job.run(VERIFY, lane="cpu", suite="toy", fetch="false", leave_to_gate="true")
    assert (lane.status, lane.outputs["exit-code"]) == (0, "1")
    assert "::warning title=lane::Exit status 1" in lane.log
    assert "::error file=" not in lane.log
    gate = job.run(GATE, suite="toy")
    assert (gate.status, gate.outputs["exit-code"]) == (1, "1")
    assert gate.log.count(f",{_TITLE}") == 1
    assert "::error title=gate::GATE NOT MET" in gate.log


def test_a_missing_run_is_never_left_to_the_gate(job: Job) -> None:
    """A usage error fails the lane, gate or not, and says that there is no run."""
    lane = job.run(
        VERIFY, lane="cpu", suite="toy", fetch="false", leave_to_gate="true", subject="nobody"
    )
    assert (lane.status, lane.outputs["exit-code"]) == (2, "2")
    assert "::error title=no run::" in lane.log
    assert lane.uploads == {"aprverify-run-cpu.1": set(), "aprverify-views-cpu.1": set()}


def test_a_run_over_its_time_is_kept(toy: Toy, job: Job) -> None:
    """At the limit the run is closed, not lost: 130, never left to the gate, and it reads."""
    toy.write({"toysuite/falsify_toy.py": _ENDLESS})
    lane = job.run(
        VERIFY, lane="cpu", suite="toy", fetch="false", leave_to_gate="true", time_limit="6s"
    )
    assert (lane.status, lane.outputs["exit-code"]) == (130, "130"), lane.log
    assert read_run(Path(lane.outputs["run"])).footer.interrupted
    assert "page.html" in lane.uploads["aprverify-views-cpu.1"]


@pytest.mark.parametrize("part", ["lane", "shard"])
def test_a_lane_of_an_odd_name_is_refused(job: Job, part: str) -> None:
    """The name becomes a folder: nothing else may hide in it."""
    names = {"lane": "cpu", part: "../cpu"}
    lane = job.run(VERIFY, suite="toy", fetch="false", **names)
    assert lane.status == 2
    assert f"::error title={part}::" in lane.log
    assert lane.uploads == {}


def test_shards_of_one_lane_replace_nothing_of_each_other(job: Job) -> None:
    """Run and artifacts carry the shard; an odd name of one is refused."""
    for shard in ("1", "2"):
        lane = job.run(VERIFY, lane="cpu", shard=shard, suite="toy", fetch="false")
        assert lane.uploads.keys() == {f"aprverify-{k}-cpu.{shard}.1" for k in ("run", "views")}
        assert f"cpu.{shard}-7-1/run.jsonl" in lane.uploads[f"aprverify-run-cpu.{shard}.1"]
    gate = job.run(GATE, suite="toy")
    assert gate.status == 0, gate.log
    assert len(re.findall(r"who made 2 runs", gate.log)) == 1


def test_inputs_reach_the_command(toy: Toy, job: Job) -> None:
    """Subject, required device and assets are handed on; the cache is, for every later step."""
    lane = job.run(
        VERIFY, lane="gpu", suite="toy", fetch="false", subject="other", require="cuda",
        assets="absent=/etc/hosts\n", cache="/nowhere/cache",
    )  # fmt: skip
    header = read_run(Path(lane.outputs["run"])).header
    assert (header.subject, header.require) == ("other", ("cuda",)), lane.log
    assert "absent=…" in header.command
    assert "APRVERIFY_CACHE=/nowhere/cache" in (job.folder / "environment").read_text()


def _signing(toy: Toy, folder: Path) -> dict[str, str]:
    """The inputs of an action that signs, with a key that was just made."""
    pytest.importorskip("cryptography", reason="signatures need the package cryptography")
    key, trusted = folder / "key.pem", folder / "trusted-keys.yaml"
    made = toy.process("-m", "aprverify", "sign", "--generate-key", "--key", str(key))
    identity = made.stdout[made.stdout.index("  - name") :].replace("NAME", "Ada Example")
    trusted.write_text(f"identities:\n{identity}")
    return {
        "signing_key": key.read_text(), "identity": "Ada Example", "trusted_keys": str(trusted)
    }  # fmt: skip


@pytest.mark.parametrize(("required", "code"), [("any", 7), ("", 0)])
def test_what_nobody_signed_is_not_signed_by_the_gate(
    toy: Toy, job: Job, tmp_path: Path, required: str, code: int
) -> None:
    """Neither where the lanes were refused nor where nobody asked who made them."""
    signing = _signing(toy, tmp_path)
    lane = job.run(VERIFY, lane="cpu", suite="toy", fetch="false")
    assert lane.status == 0, lane.log
    gate = job.run(GATE, suite="toy", require_signed=required, **signing)
    assert gate.status == code, gate.log
    merged = gate.uploads["aprverify-merged.1"]
    assert "merged-7-1/run.jsonl" in merged
    assert "merged-7-1/run.dsse.json" not in merged
    assert gate.steps["Sign the merged run"] == "skipped"


def test_a_lane_that_is_falsified_and_signed_is_signed_merged(
    toy: Toy, job: Job, tmp_path: Path
) -> None:
    """A signature says who answers for a run, not that all of it held."""
    signing = _signing(toy, tmp_path)
    toy.write({"toysuite/falsify_toy.py": _WRONG})
    job.run(VERIFY, lane="cpu", suite="toy", fetch="false", leave_to_gate="true", **signing)
    gate = job.run(GATE, suite="toy", require_signed="any", **signing)
    assert gate.status == 1, gate.log
    assert "merged-7-1/run.dsse.json" in gate.uploads["aprverify-merged.1"]


def test_a_signed_lane_passes_a_gate_that_asks_for_it(toy: Toy, job: Job, tmp_path: Path) -> None:
    """The key signs lane and merged run, and is on no disk and in no log afterwards."""
    signing = _signing(toy, tmp_path)
    key = tmp_path / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    lane = job.run(VERIFY, lane="cpu", suite="toy", fetch="false", **signing)
    assert lane.status == 0, lane.log
    assert "cpu-7-1/run.dsse.json" in lane.uploads["aprverify-run-cpu.1"]
    gate = job.run(GATE, suite="toy", require_signed="Ada Example", **signing)
    assert gate.status == 0, gate.log
    assert "merged-7-1/run.dsse.json" in gate.uploads["aprverify-merged.1"]
    secret = key.read_text().splitlines()[1]
    assert secret not in lane.log + gate.log
    left = [p for p in (tmp_path / "job").rglob("*") if p.is_file()]
    assert not [p for p in left if secret.encode() in p.read_bytes()]
