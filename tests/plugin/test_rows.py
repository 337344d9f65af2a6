"""Rows: every planned entry leaves exactly one, whatever happens to modules, workers and users."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from aprverify.evidence.reader import read_run

from ..conftest import HELD, Toy, contract, falsification, rows_by_test

_CASES = [{"scale": "full", "matrix": {"device": ["cpu"], "seed": [0, 1, 2, 3]}}]


def _one_contract_a_module(toy: Toy, **falsifiers: str) -> None:
    """A module falsify_NAME with a function falsify_NAME for each, four cases each."""
    (toy.root / "toysuite/falsify_toy.py").unlink()
    tests = []
    for name, body in falsifiers.items():
        toy.write({f"toysuite/falsify_{name}.py": body})
        falsifier = f"falsify_{name}.falsify_{name}"
        tests.append(falsification(f"FALSIFY-TOY-001.{name}", falsifier, cases=_CASES))
    toy.contract(contract(falsification_tests=tests, invariants=[], gates=[]))


def _held(name: str) -> str:
    return HELD.replace("falsify_sum", f"falsify_{name}")


def _outcomes(toy: Toy, *arguments: str) -> tuple[int, dict[str, Counter[str]], str]:
    done, run = toy.record(*arguments)
    found: dict[str, Counter[str]] = {}
    for row in run.rows:
        kind = f"{row.outcome} {row.reason.kind}" if row.reason else row.outcome
        found.setdefault(row.test.rpartition(".")[2], Counter())[kind] += 1
    return done.returncode, found, done.stdout


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "two workers"])
@pytest.mark.parametrize("keyword", [(), ("-k", "device:cpu")], ids=["all", "selected"])
def test_a_module_that_cannot_be_imported_breaks_its_entries(
    toy: Toy, workers: tuple[str, ...], keyword: tuple[str, ...]
) -> None:
    """Everything that was collected held, and yet this is no success."""
    _one_contract_a_module(toy, good=_held("good"), bad="import nowhere_at_all\n" + _held("bad"))
    code, found, said = _outcomes(toy, "--continue-on-collection-errors", *workers, *keyword)
    assert found == {"good": {"held": 4}, "bad": {"broken missing": 4}}
    assert code == 1
    assert "aprverify: broken FALSIFY-TOY-001.bad[device=cpu,seed=0]: no row came back" in said


def test_a_module_that_skips_itself_breaks_its_entries(toy: Toy) -> None:
    """pytest would call this a success."""
    skip = "import pytest\npytest.skip('no', allow_module_level=True)\n"
    _one_contract_a_module(toy, good=_held("good"), bad=skip + _held("bad"))
    code, found, _ = _outcomes(toy)
    assert found == {"good": {"held": 4}, "bad": {"broken missing": 4}}
    assert code == 1


def test_a_suite_in_which_nothing_can_be_imported_leaves_a_run(toy: Toy) -> None:
    """All of its entries are broken."""
    _one_contract_a_module(toy, bad="import nowhere_at_all\n" + _held("bad"))
    code, found, _ = _outcomes(toy, "--continue-on-collection-errors")
    assert found == {"bad": {"broken missing": 4}} and code == 1


@pytest.mark.parametrize("death", ["os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_a_worker_that_dies_breaks_the_entry_it_ran_and_no_other(toy: Toy, death: str) -> None:
    """Another worker takes its place."""
    body = f"    import os\n    if case.seed == 1:\n        {death}\n    measured"
    _one_contract_a_module(toy, good=_held("good").replace("    measured", body))
    code, found, said = _outcomes(toy, "-n1")
    assert found == {"good": {"held": 3, "broken crash": 1}}
    assert code == 1
    assert (
        "aprverify: broken FALSIFY-TOY-001.good[device=cpu,seed=1]: the worker process died" in said
    )


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["alone", "a worker"])
def test_ctrl_c_leaves_a_finished_run_that_says_so(toy: Toy, workers: tuple[str, ...]) -> None:
    """What did not run is not run, with the reason; what had run keeps its verdict."""
    body = (
        "    import pathlib, time\n    if case.seed == 1:\n"
        "        pathlib.Path('started').touch()\n        time.sleep(60)\n    measured"
    )
    _one_contract_a_module(toy, slow=_held("slow").replace("    measured", body))
    folder = toy.root / "evidence/run"
    command = [sys.executable, "-m", "pytest", "--evidence", str(folder)]
    with subprocess.Popen(
        [*command, *workers], cwd=toy.root, env=toy.env(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 50
        while not (toy.root / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=50)
    run = read_run(folder)
    assert process.returncode == 2
    assert run.footer.interrupted
    outcomes = [(row.outcome, row.reason.kind if row.reason else None) for row in run.rows]
    assert Counter(outcomes) == {("held", None): 1, ("not_run", "interrupted"): 3}


def test_stopping_at_the_first_failure_leaves_the_rest_not_run(toy: Toy) -> None:
    """`-x` is an interruption, not a loss."""
    _one_contract_a_module(toy, bad=_held("bad").replace("[1, 2]", "[case.seed]"))
    code, found, _ = _outcomes(toy, "-x")
    assert found == {"bad": {"falsified": 1, "not_run interrupted": 3}}
    assert code == 1


def test_an_entry_has_one_row_also_when_it_is_run_twice(toy: Toy) -> None:
    """The first verdict counts: running it again until it holds is no way."""
    body = (
        "    import pathlib\n    again = pathlib.Path(f'ran-{case.seed}')\n"
        "    first = not again.exists()\n    again.touch()\n    measured(x=4 if first else 3)\n"
    )
    falsifier = "def falsify_flaky(subject, case, measured):\n" + body
    _one_contract_a_module(toy, flaky=falsifier)
    path = "toysuite/falsify_flaky.py"
    code, found, _ = _outcomes(toy, "--keep-duplicates", path, path)
    assert found == {"flaky": {"falsified": 4}} and code == 1


def test_a_run_is_never_written_into_another(toy: Toy) -> None:
    """It is refused before anything runs, and the first run stays."""
    _, run = toy.record()
    done = toy.pytest("--evidence", str(run.path.parent))
    assert done.returncode == 4 and "holds a run already; name a new folder" in done.stderr
    assert read_run(run.path).sha256 == run.sha256


def test_a_run_says_what_was_asked_for(toy: Toy) -> None:
    """It is complete only where nothing was left out."""
    _, run = toy.record()
    assert run.header.selection.complete and run.header.planned == 1
    for arguments in (("-k", "C-TOY"), ("toysuite/falsify_toy.py",), ("--ignore", "other")):
        _, run = toy.record(*arguments)
        assert not run.header.selection.complete, arguments


def test_what_was_measured_is_written_also_where_it_is_not_finite(toy: Toy) -> None:
    """Value, bound and unit of each comparison, and the row's place."""
    toy.write({"toysuite/falsify_toy.py": HELD.replace("subject.total([1, 2])", "float('inf')")})
    _, run = toy.record()
    row = rows_by_test(run)["FALSIFY-TOY-001"]
    assert row.outcome == "falsified" and row.comparisons[0].observed == float("inf")
    assert row.nodeid == "toysuite/falsify_toy.py::falsify_sum[FALSIFY-TOY-001-device=cpu]"
    assert row.worker == "main" and row.environment == run.environments[0].id


def test_collecting_only_leaves_no_run(toy: Toy, tmp_path: Path) -> None:
    """Nothing was run."""
    toy.pytest("--collect-only", "--evidence", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
