"""The two commands on histories that mislead `git bisect run pytest`, in processes as users run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import Toy, build_toy, contract, falsification
from .histories import History

ID = "FALSIFY-TOY-001"
_CORE = "from toytrainer import constants\nLEFT = []\n\ndef total(values):\n    {body}\n"
_HELD, _FALSE = "return sum(values) + constants.ZERO", "return sum(values) + 1"
_ABSENT = """
from toytrainer import core

class NotSupported(Exception):
    pass

class Toy:
    name = "toy"

    def total(self, values):
        if not hasattr(core, "total"):
            raise NotSupported("this trainer cannot add")
        return core.total(values)
"""
_BY_COMMAND = """
import subprocess, sys

def falsify_sum(subject, case, measured):
    done = subprocess.run([sys.executable, "-m", "toytrainer"], capture_output=True, text=True)
    measured(x=3 if done.stdout.startswith("total 3") else -1)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The toy suite, with a cache of its own, which is a repository too."""
    monkeypatch.setenv("APRVERIFY_CACHE", str(tmp_path / "cache"))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "ada@example.org")
    return build_toy(tmp_path / "project")


def _history(toy: Toy) -> History:
    toy.write({".gitignore": "__pycache__/\n"})
    return History(toy.root)


def _core(body: str, more: str = "") -> dict[str, str]:
    return {"toytrainer/core.py": _CORE.format(body=body) + more}


def _bisect(toy: Toy, *words: str) -> subprocess.CompletedProcess[str]:
    return toy.process("-m", "aprverify", "--suite", "toy", "bisect", *words)


def _raw(history: History, toy: Toy, good: str, bad: str) -> str:
    """Whom `git bisect run pytest` blames."""
    history.git("bisect", "start", bad, good)
    subprocess.run(
        ["git", "bisect", "run", sys.executable, "-m", "pytest", "-q", "-k", ID],
        cwd=toy.root, env={**toy.env(), "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True,
        timeout=120, check=False,
    )  # fmt: skip
    blamed = history.git("rev-parse", "refs/bisect/bad")
    history.git("bisect", "reset")
    return blamed


def test_old_commits_without_the_falsifier_and_a_broken_import_mislead_pytest_only(
    toy: Toy,
) -> None:
    """The suite of today judges commits that had none; a broken import is passed over."""
    contracts = (toy.root / "contracts/toy.yaml").read_text()
    falsifier = (toy.root / "toysuite/falsify_toy.py").read_text()
    (toy.root / "contracts/toy.yaml").unlink()
    (toy.root / "toysuite/falsify_toy.py").unlink()
    history = _history(toy)
    good = history.commit("no falsifier yet", _core(_HELD))
    history.commit("a comment", _core(_HELD, "# one\n"))
    history.commit("imports what is not there", _core(_HELD, "from toytrainer import gone\n"))
    history.commit("mend the import", _core(_HELD, "# two\n"))
    fault = history.commit("add faster\x1b[31m", _core(_FALSE))
    history.commit("a comment more", _core(_FALSE, "# three\n"))
    bad = history.commit(
        "add the falsifier",
        {"contracts/toy.yaml": contracts, "toysuite/falsify_toy.py": falsifier},
    )
    assert _raw(history, toy, good, bad) != fault
    done = _bisect(toy, good, bad, ID)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"first bad commit {fault}" in done.stdout
    for said in (
        "author        Ada <ada@example.org>",
        "subject       add faster\\x1b[31m",
        "claim sum: x == 3: observed 4, bound == 3",
        f"see it        aprverify --suite toy probe --at {fault[:12]} '{ID}[device=cpu]'",
    ):
        assert said in done.stdout
    assert "steps left" in done.stderr
    # The command that is offered shows it.
    shown = toy.process("-m", "aprverify", "--suite", "toy", "probe", "--at", fault, ID)
    assert shown.returncode == 1 and "observed 4, bound == 3" in shown.stdout


def test_what_a_trainer_lacks_is_a_range_with_the_reason(toy: Toy) -> None:
    """A feature that is taken out and comes back wrong: any commit between may have broken it."""
    toy.write({"toysuite/adapter.py": _ABSENT})
    history = _history(toy)
    good = history.commit("add", _core(_HELD))
    out = history.commit("take it out", {"toytrainer/core.py": "LEFT = []\n"})
    history.commit("nothing", {"README": "words"})
    back = history.commit("bring it back", _core(_FALSE))
    done = _bisect(toy, good, back, ID)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "one of 2 commits is the first bad one" in done.stdout
    assert f"{out[:10]}  Ada" in done.stdout and f"{back[:10]}  Ada" in done.stdout
    assert "not supported by this trainer: this trainer cannot add" in done.stdout


def test_a_broken_import_that_only_the_command_line_meets_is_not_blamed(toy: Toy) -> None:
    """A falsifier that starts the trainer as a command sees a wrong status, and is not asked."""
    toy.write({"toysuite/falsify_toy.py": _BY_COMMAND})
    history = _history(toy)
    main = (toy.root / "toytrainer/__main__.py").read_text()
    good = history.commit("add", _core(_HELD))
    broken = {"toytrainer/__main__.py": "from toytrainer.core import gone\n" + main}
    middle = history.commit("break the command", broken)
    history.commit("mend the command", {"toytrainer/__main__.py": main, **_core(_HELD, "# 1\n")})
    bad = history.commit("fault", _core(_FALSE))
    done = _bisect(toy, good, bad, ID)
    assert done.returncode == 0 and f"first bad commit {bad}" in done.stdout, done.stdout
    probed = toy.process("-m", "aprverify", "--suite", "toy", "probe", "--at", middle, ID)
    assert probed.returncode == 125, probed.stdout + probed.stderr
    assert "import broken: cannot import name 'gone' from toytrainer.core" in probed.stdout


def test_a_setup_that_flickers_gets_a_second_try(toy: Toy, tmp_path: Path) -> None:
    """What breaks once and then holds is good."""
    flag = tmp_path / "flag"
    flicker = (
        f"import pathlib\n    flag = pathlib.Path({str(flag)!r})\n    if not flag.exists():\n"
        f"        flag.touch()\n        raise OSError('busy')\n    {_HELD}"
    )
    history = _history(toy)
    history.commit("flickers", _core(flicker))
    probed = toy.process("-m", "aprverify", "--suite", "toy", "probe", ID)
    assert flag.exists() and probed.returncode == 0, probed.stdout + probed.stderr


def test_a_dirty_working_tree_stays_as_it_is(toy: Toy) -> None:
    """Branch, index, changes and untracked files are as before; no work tree is left behind."""
    history = _history(toy)
    good = history.commit("add", _core(_HELD))
    bad = history.commit("fault", _core(_FALSE))
    toy.write({"toytrainer/core.py": "this is no Python\n", "notes": "mine", "staged": "too"})
    history.git("add", "staged")

    def state() -> list[str]:
        asked = (("status", "--porcelain"), ("diff", "HEAD"), ("worktree", "list"), ("branch",))
        return [history.git(*words) for words in asked]

    before = state()
    done = _bisect(toy, good, bad, ID)
    assert done.returncode == 0 and f"first bad commit {bad}" in done.stdout, done.stderr
    assert state() == before


def test_a_bisection_that_was_stopped_goes_on_from_its_log(toy: Toy) -> None:
    """Ctrl-C leaves a log; what it holds is not judged again, and a changed suite is refused."""
    history = _history(toy)
    commits = [history.commit(f"c{n}", _core(_HELD, f"# {n}\n")) for n in range(4)]
    commits += [history.commit(f"c{n}", _core(_FALSE, f"# {n}\n")) for n in range(4, 8)]
    command = [sys.executable, "-m", "aprverify", "--suite", "toy", "bisect"]
    process = subprocess.Popen(
        [*command, commits[0], commits[-1], ID], cwd=toy.root, env=toy.env(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline().startswith("bisect: BAD")
    assert process.stderr.readline().startswith("bisect: GOOD")
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "aprverify bisect --resume" in said
    log = toy.root / ".git/aprverify-bisect.jsonl"
    with log.open("a") as file:
        file.write('{"commit": "cut o')
    assert len([json.loads(line) for line in log.read_text().splitlines()[:-1]]) == 3
    toy_env = {**toy.env(), "APRVERIFY_CACHE": str(toy.root.parent / "another-cache")}
    resumed = subprocess.run(
        [*command, "--resume"], cwd=toy.root, env=toy_env, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert f"first bad commit {commits[4]}" in resumed.stdout
    assert "bisect: BAD: " in resumed.stderr and "[known]" in resumed.stderr.splitlines()[0]
    toy.write({"toysuite/canary.py": "def measure():\n    return ''\n"})
    refused = _bisect(toy, "--resume")
    assert refused.returncode == 2 and "the suite has changed" in refused.stderr


def test_git_bisect_run_probe_names_the_culprit_by_the_suite_of_its_start(toy: Toy) -> None:
    """In the very checkout that the suite is in, where each step moves the suite away."""
    history = _history(toy)
    falsifier = (toy.root / "toysuite/falsify_toy.py").read_text()
    good = history.commit("blind suite", {"toysuite/falsify_toy.py": "", **_core(_HELD)})
    history.commit("one", _core(_HELD, "# 1\n"))
    history.commit("cannot be imported", _core("return sum(values"))
    history.commit("two", _core(_HELD, "# 2\n"))
    fault = history.commit("fault", _core(_FALSE))
    history.commit("three", _core(_FALSE, "# 3\n"))
    bad = history.commit("the suite of today", {"toysuite/falsify_toy.py": falsifier})
    history.git("bisect", "start", bad, good)
    run = ["git", "bisect", "run", sys.executable, "-m", "aprverify", "--suite", "toy", "probe"]
    done = subprocess.run(
        [*run, ID], cwd=toy.root, env=toy.env(), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert f"{fault} is the first bad commit" in done.stdout, done.stdout + done.stderr
    assert "judged by the suite of" in done.stdout
    history.git("bisect", "reset")
    # Without a checkout, too, and by what git itself asks about.
    history.git("bisect", "start", "--no-checkout", bad, good)
    done = subprocess.run(
        [*run, ID], cwd=toy.root, env=toy.env(), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert f"{fault} is the first bad commit" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    "words", [["NO-SUCH-ID"], [], ["--no-such-option", ID], ["--at", "no-such-commit", ID]]
)
def test_a_mistake_stops_git_bisect_and_blames_nobody(toy: Toy, words: list[str]) -> None:
    """Its exit status is none that git takes for a verdict."""
    _history(toy).commit("add", _core(_HELD))
    done = toy.process("-m", "aprverify", "--suite", "toy", "probe", *words)
    assert done.returncode == 129, done.stdout + done.stderr


def test_a_probe_says_good_bad_and_cannot_be_tested(toy: Toy) -> None:
    """0, 1 and 125; a case of a device that is not here decides nothing."""
    cases = [{"scale": "full", "matrix": {"device": ["cpu", "cuda"]}}]
    test = falsification(ID, "falsify_toy.falsify_sum", invariants=["INV-TOY-001"], cases=cases)
    toy.contract(contract(falsification_tests=[test]))
    _history(toy).commit("add", _core(_HELD))

    def probe(*words: str) -> int:
        done = toy.process("-m", "aprverify", "--suite", "toy", "probe", *words, ID)
        return done.returncode

    assert probe() == 0
    assert probe("--device", "cuda") == 125
    toy.write(_core(_FALSE))
    assert probe() == 1
    toy.write(_core("raise MemoryError"))
    assert probe() == 125


def test_another_trainer_is_moved_by_its_name(toy: Toy, tmp_path: Path) -> None:
    """An adapter of one's own stays, and the package named is taken from another repository."""
    toy.write({"mine.py": _ABSENT.replace("toytrainer", "their")})
    theirs = History(tmp_path / "theirs")
    good = theirs.commit("add", {"src/their/core.py": "def total(values):\n    return 3\n"})
    bad = theirs.commit("fault", {"src/their/core.py": "def total(values):\n    return 4\n"})
    command = ["-m", "aprverify", "--suite", "toy", "bisect", good, bad, ID]
    done = subprocess.run(
        [sys.executable, *command, "--subject", "mine:Toy", "--moves", "their"], cwd=theirs.root,
        env=toy.env(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and f"first bad commit {bad}" in done.stdout, done.stderr


def test_what_somebody_adds_to_every_pytest_has_no_say(toy: Toy) -> None:
    """Options, plugins and settings of one's own: the verdicts are those of `verify`."""
    toy.write({"toysuite/bystander.py": "raise RuntimeError('loaded')\n"})
    _history(toy).commit("add", _core(_FALSE))
    variables = {
        **toy.env(),
        "PYTEST_ADDOPTS": "-k nothing-at-all",
        "PYTEST_PLUGINS": "toysuite.bystander",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "",
    }
    done = subprocess.run(
        [sys.executable, "-m", "aprverify", "--suite", "toy", "probe", ID],
        cwd=toy.root, env=variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "observed 4, bound == 3" in done.stdout


def test_mistakes_in_the_question_are_told_apart(toy: Toy, tmp_path: Path) -> None:
    """Swapped ends, equal ends, unknown commits and too few words are usage errors."""
    history = _history(toy)
    one = history.commit("add", _core(_HELD))
    two = history.commit("fault", _core(_FALSE))
    for words, said in (
        ((two, one, ID), "the other way round"),
        ((one, one, ID), "the same commit"),
        (("nowhere", two, ID), "no commit nowhere"),
        ((one, two), "needs GOOD BAD ID"),
        ((one, two, "INV-NONE-001"), "no contract declares INV-NONE-001"),
        (("--resume",), "nothing to resume"),
    ):
        done = _bisect(toy, *words)
        assert done.returncode == 2 and said in done.stderr, done.stderr
