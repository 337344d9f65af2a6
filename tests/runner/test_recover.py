"""`aprverify recover`: what a killed session had found is kept; what it had not is not made up."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from aprverify.evidence.reader import RUN_FILE, read_run
from tests.conftest import Toy, contract, falsification

_DIES = """
import os

def falsify_sum(subject, case, measured):
    if case.seed == 2:
        os.kill(os.getpid(), 9)
    measured(x=subject.total([1, 2]))
"""
_CASES = [{"scale": "full", "matrix": {"device": ["cpu"], "seed": [0, 1, 2, 3]}}]


@pytest.fixture
def killed(toy: Toy) -> Path:
    """The folder of a session that died in the third of four entries."""
    toy.write({"toysuite/falsify_toy.py": _DIES})
    test = falsification(
        "FALSIFY-TOY-001", "falsify_toy.falsify_sum", cases=_CASES, invariants=["INV-TOY-001"]
    )
    toy.contract(contract(falsification_tests=[test]))
    folder = toy.root / "killed"
    _session(toy, folder)
    assert "footer" not in (folder / "lane-all" / RUN_FILE).read_text()
    return folder


def _session(toy: Toy, folder: Path, *options: str) -> None:
    done = toy.process(
        "-m", "pytest", "--evidence", str(folder / "lane-all"), "--teeth", "none", *options
    )
    assert done.returncode == -9


def _recover(toy: Toy, folder: Path, out: str = "recovered") -> tuple[int, str]:
    done = toy.process("-m", "aprverify", "--suite", "toy", "recover", str(folder), "--out", out)
    return done.returncode, done.stdout + done.stderr


def test_rows_stay_and_the_rest_is_not_run(toy: Toy, killed: Path) -> None:
    """The run says that it was interrupted; what was killed stays as it lay there."""
    before = (killed / "lane-all" / RUN_FILE).read_bytes()
    code, said = _recover(toy, killed)
    run = read_run(toy.root / "recovered")
    assert code == 130 and "INTERRUPTED" in said and "lane-all: killed, with 2 entries" in said
    outcomes = Counter((r.outcome, r.reason.kind if r.reason else None) for r in run.rows)
    assert outcomes == {("held", None): 2, ("not_run", "interrupted"): 2}
    assert run.footer.interrupted and run.header.command[:2] == ("aprverify", "recover")
    assert (toy.root / "recovered/report.md").exists()
    assert (killed / "lane-all" / RUN_FILE).read_bytes() == before


def test_a_line_that_was_cut_off_is_left_out(toy: Toy, killed: Path) -> None:
    """The entry whose row it was to be has not run."""
    file = killed / "lane-all" / RUN_FILE
    file.write_bytes(file.read_bytes()[:-40])
    assert _recover(toy, killed)[0] == 130
    outcomes = Counter(row.outcome for row in read_run(toy.root / "recovered").rows)
    assert outcomes == {"held": 1, "not_run": 3}


def test_a_changed_row_is_refused(toy: Toy, killed: Path) -> None:
    """The chain holds without a footer too."""
    file = killed / "lane-all" / RUN_FILE
    lines = file.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if json.loads(line)["type"] == "row")
    lines[number] = lines[number].replace('"seconds":', '"seconds":1')
    file.write_text("\n".join(lines) + "\n")
    code, said = _recover(toy, killed)
    assert code == 7 and "BrokenChain" in said
    assert not (toy.root / "recovered").exists()


@pytest.mark.parametrize("changed", ["toysuite/falsify_toy.py", "contracts/toy.yaml"])
def test_other_files_cannot_account_for_the_run(toy: Toy, killed: Path, changed: str) -> None:
    """A row that was not run would name bytes that were never tested."""
    with (toy.root / changed).open("a") as stream:
        stream.write("# another\n")
    code, said = _recover(toy, killed)
    assert code == 2 and "other files than those here" in said


def test_of_a_selection_nobody_knows_what_is_missing(toy: Toy, killed: Path) -> None:
    """Closing it would call it whole."""
    _session(toy, toy.root / "part", "-k", "device:cpu")
    code, said = _recover(toy, toy.root / "part")
    assert code == 2 and "a part of the suite was selected" in said


def test_where_nothing_was_left_one_line_says_so(toy: Toy, killed: Path) -> None:
    """So it does where the new folder exists."""
    code, said = _recover(toy, toy.root / "contracts")
    assert code == 2 and "holds no lane-*/run.jsonl" in said
    code, said = _recover(toy, killed, "contracts")
    assert code == 2 and "exists; name a new folder" in said
