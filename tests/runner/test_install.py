"""What the installer asks pip for, on a machine that brings torch and on one that does not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.runner.files import ACTIONS, ROOT

# An interpreter that makes a copy of itself as an environment, has a torch or none, and notes pip.
_PYTHON = """\
#!/bin/bash
case "$*" in
  "-m venv"*) venv=${@: -1}; mkdir -p "$venv/bin"; cp "$0" "$venv/bin/python"
              printf '%s\\n' "$*" >>"$NOTES" ;;
  "-c import torch"*) [[ -n $TORCH ]] && echo "$TORCH" ;;
  *) printf '%s\\n' "$@" >>"$NOTES" ;;
esac
"""


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """The interpreter."""
    path = tmp_path / "python"
    path.write_text(_PYTHON)
    path.chmod(0o755)
    return path


def _install(stub: Path, **variables: str) -> tuple[int, list[str], Path]:
    notes, venv = stub.parent / "notes", stub.parent / "venv"
    done = subprocess.run(
        ["bash", str(ACTIONS / "install.sh"), str(venv)],
        env={**os.environ, "PYTHON": str(stub), "NOTES": str(notes), "TORCH": "", **variables},
        check=False,
    )
    return done.returncode, notes.read_text().splitlines() if notes.exists() else [], venv


def test_constraints_and_more_arguments_reach_pip(stub: Path) -> None:
    """pip installs this checkout with its constraints; nothing of an argument is expanded."""
    status, notes, _ = _install(stub, PIP_ARGUMENTS="--editable . \n $HOME *")
    assert status == 0
    assert "--system-site-packages" not in notes[0]
    assert notes[notes.index("--constraint") + 1] == str(ROOT / "constraints.txt")
    assert f"{ROOT}[oracle,sign]" in notes
    assert notes[-4:] == ["--editable", ".", "$HOME", "*"]


def test_the_machines_torch_is_pinned_to_its_build(stub: Path) -> None:
    """With KEEP_TORCH the environment sees the machine's packages and pip may not change torch."""
    status, notes, venv = _install(stub, KEEP_TORCH="true", TORCH="2.11.0+cu130")
    assert status == 0
    assert "--system-site-packages" in notes[0]
    constraints = (venv / "constraints.txt").read_text().splitlines()
    assert [line for line in constraints if line.startswith("torch==")] == ["torch==2.11.0+cu130"]
    whole = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(constraints) == len(whole)
    assert notes[notes.index("--constraint") + 1] == str(venv / "constraints.txt")


def test_no_torch_to_keep_is_an_error(stub: Path) -> None:
    """Without one, pip would quietly choose a torch for itself."""
    status, notes, _ = _install(stub, KEEP_TORCH="true")
    assert status == 2
    assert "pip" not in notes


def test_an_environment_that_is_there_is_kept(stub: Path) -> None:
    """A second action in the same job does not install again."""
    status, notes, _ = _install(stub, PIP_ARGUMENTS="one two")
    assert status == 0
    assert _install(stub, PIP_ARGUMENTS="one two")[:2] == (0, notes)


@pytest.mark.parametrize(
    "variables", [{"PIP_ARGUMENTS": "three"}, {"KEEP_TORCH": "true", "TORCH": "2.11.0"}]
)
def test_an_environment_of_other_inputs_is_refused(
    stub: Path, capfd: pytest.CaptureFixture[str], variables: dict[str, str]
) -> None:
    """It would lack what was asked for, and nobody would notice."""
    assert _install(stub, PIP_ARGUMENTS="one")[0] == 0
    assert _install(stub, **{"PIP_ARGUMENTS": "one", **variables})[0] == 2
    assert "was made of other inputs" in capfd.readouterr().err


def test_an_environment_that_was_cut_off_is_made_again(stub: Path) -> None:
    """What stands there without a note of its inputs may lack anything."""
    program = stub.parent / "venv" / "bin" / "aprverify"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    status, notes, _ = _install(stub)
    assert status == 0
    assert "--editable" in notes
