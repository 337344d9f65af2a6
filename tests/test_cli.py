"""The command line: exit statuses and messages when the world or aprverify itself is at fault."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from aprverify import cli
from aprverify.commands import lint, verify
from aprverify.evidence import verdict
from aprverify.evidence.reader import read_run

from .conftest import Toy

TOY = ("-m", "aprverify", "--suite", "toy")


def test_what_cannot_be_written_is_one_line_and_not_a_verdict(toy: Toy) -> None:
    """Exit status 1 would say that a claim was falsified."""
    done = toy.process(*TOY, "verify", "--run-dir", "toysuite/adapter.py/run")
    assert done.returncode == verdict.BROKEN
    (line,) = done.stderr.splitlines()
    assert line.startswith("aprverify: ") and line.endswith(", and run it again")
    assert "toysuite/adapter.py" in line and "Not a directory" in line


_WITHOUT_EXTRAS = """
import sys
sys.modules.update(dict.fromkeys(["cosmic_ray", "parso", "cryptography", "transformers"]))
from aprverify.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_extras_are_imported_by_the_commands_that_need_them_alone(toy: Toy) -> None:
    """A CI lane installs none for mutants, and lists its contracts all the same."""
    done = toy.process("-c", _WITHOUT_EXTRAS, "--suite", "toy", "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert "FALSIFY-TOY" in done.stdout


@pytest.mark.parametrize("length", [100, 20_000])
def test_a_full_disk_behind_the_output_is_one_line(toy: Toy, length: int) -> None:
    """Whether it shows while printing or only at the end."""
    program = f"""
import sys
from aprverify import cli
from aprverify.commands import list_
list_.run = lambda options: print("x" * {length}) or 0
sys.exit(cli.main(["--suite", "toy", "list"]))
"""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=toy.root, env=toy.env(),
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == verdict.BROKEN
    assert done.stderr == (
        "aprverify: its output, or a process that it starts: No space left on device; free some "
        "space there, and run it again\n"
    )


def test_a_reader_that_had_enough_is_no_error(toy: Toy) -> None:
    """As in `aprverify list | head`: quiet, with the status that shells give SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, *TOY, "list"], cwd=toy.root, env=toy.env(),
        stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_bug_keeps_its_traceback_and_is_not_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """BROKEN, with what a report of the bug needs."""
    monkeypatch.setattr(cli, "find_suite", lambda name: name)
    monkeypatch.setattr(lint, "run", lambda options: 1 // 0)
    assert cli.main(["lint"]) == verdict.BROKEN
    said = capsys.readouterr().err
    assert "Traceback" in said and "ZeroDivisionError" in said and "please report it" in said


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("nope:X", "No module named 'nope'"),
        ("nope.deeper:X", "No module named 'nope'"),
        ("toysuite.nope:X", "No module named 'toysuite.nope'"),
        ("raising.inner:X", "ZeroDivisionError"),
        (":X", "No module named ''"),
        ("nope", "use one of toy, other, or MODULE:ATTRIBUTE"),
    ],
)
def test_a_subject_that_is_not_there_stops_verify_before_it_runs(
    toy: Toy, subject: str, words: str
) -> None:
    """One message, a usage error, and no folder."""
    toy.write({"raising/__init__.py": "1 / 0\n", "raising/inner.py": ""})
    done = toy.process(*TOY, "verify", "--subject", subject)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert subject in line and words in line
    assert not (toy.root / "evidence").exists()


def test_a_subject_in_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installed command does not have that folder on its path; the lanes do."""
    (tmp_path / "subject_at_hand.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setattr(cli, "find_suite", lambda name: name)
    monkeypatch.setattr(lint, "run", lambda options: int(find_spec("subject_at_hand") is None))
    assert cli.main(["lint"]) == 0


def test_runs_that_begin_in_the_same_second_have_names_of_their_own() -> None:
    """And names in the order of time."""
    names = {verify._run_id() for _ in range(16)}
    assert len(names) == 16
    assert all(name[:2] == "20" and name[8] == "T" and name[15:17] == "Z-" for name in names)


def test_another_subject_is_verified_and_kept_until_a_file_changes(toy: Toy) -> None:
    """Its gate is DISCHARGED without the defect that patches the toy trainer, and says so."""
    done = toy.process(*TOY, "verify", "--subject", "other", "-n", "0", "--run-dir", "run")
    assert done.returncode == verdict.OK, done.stdout + done.stderr
    assert "1 of 2 planted defects do not apply" in " ".join(done.stdout.split())
    run = read_run(toy.root / "run")
    assert {row.defect: row.outcome for row in run.rows} == {
        None: "held",
        "one-more": "caught",
        "one-less": "not_run",
    }
    report = (toy.root / "run" / "report.md").read_text("utf-8")
    assert "| **GATE-TOY-001** | DISCHARGED |" in report
    assert "counter-example one-less does not apply to the subject" in report
    added = toy.process(*TOY, "evidence", "add", "run")
    assert added.returncode == verdict.OK, added.stderr
    toy.write({"toytrainer/constants.py": "ZERO = 0.0\n"})
    index = toy.process(*TOY, "evidence", "index")
    assert "As of now 3 rows are stale, and 0 entries have no row." in index.stdout
    again = toy.process(*TOY, "evidence", "add", "run")
    assert again.returncode == verdict.REFUSED
    assert "3 of 3 rows are not about the present files, as FALSIFY-TOY-001[" in again.stderr


_TWO_LANES = """
import sys
from aprverify import cli
from aprverify.commands import verify
verify.visible_gpus = lambda: ("a GPU",)
sys.exit(cli.main(["--suite", "toy", "verify", "--run-dir", "run", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_lane_that_nothing_was_selected_for_is_no_error(toy: Toy, workers: str) -> None:
    """On a machine with a GPU, a selection of CPU entries leaves the CUDA lane empty."""
    done = toy.process("-c", _TWO_LANES, "-n", workers)
    assert done.returncode == verdict.OK, done.stdout + done.stderr
    run = read_run(toy.root / "run")
    assert [row.device for row in run.rows if row.kind == "claim"] == ["cpu"]
    assert [path.name for path in (toy.root / "run").iterdir() if path.is_dir()] == []


def test_a_lane_that_fails_is_an_error_though_another_has_a_run(toy: Toy) -> None:
    """Half a run is not passed off as the whole."""
    lanes = "verify._session = lambda args, lane, folder, own=verify._session: "
    broken = f'{lanes}[*own(args, lane, folder), *(["--no-such-flag"] if lane == "cuda" else [])]'
    done = toy.process("-c", _TWO_LANES.replace("sys.exit", f"{broken}\nsys.exit"), "-n", "0")
    assert done.returncode == 2
    assert "a lane left no run" in done.stderr
    assert not (toy.root / "run" / "run.jsonl").exists()


def test_a_selection_that_no_lane_has_leaves_nothing(toy: Toy) -> None:
    """There is no run of nothing."""
    done = toy.process("-c", _TWO_LANES, "-n", "0", "-k", "no_such_word")
    assert done.returncode == 2
    assert not (toy.root / "run").exists()
