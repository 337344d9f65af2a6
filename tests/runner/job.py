"""A job on this machine: the steps of a composite action, really run without a runner.

Uploads are noted, downloads skipped. A few rules read expressions; any other is an error.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.runner.files import ROOT, read_yaml

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass
class Done:
    """What an action did; `status`: of the first step that failed, else 0."""

    status: int = 0
    log: str = ""
    uploads: dict[str, set[str]] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass
class Job:
    """A job in `folder`, working in `workspace`."""

    folder: Path
    workspace: Path
    variables: Mapping[str, str]

    def __post_init__(self) -> None:
        binaries = self.temp / "aprverify" / "venv" / "bin"
        binaries.mkdir(parents=True)
        # The installer finds it there and leaves it.
        program = binaries / "aprverify"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m aprverify "$@"\n')
        program.chmod(0o755)
        made_of = f"{ROOT}\npython3\nfalse\n\n"
        (binaries.parent / "aprverify-made-of").write_text(made_of)

    @property
    def temp(self) -> Path:
        """RUNNER_TEMP."""
        return self.folder / "temp"

    @property
    def summary(self) -> str:
        """What the job's summary shows."""
        file = self.folder / "summary"
        return file.read_text("utf-8") if file.exists() else ""

    def run(self, action: Path, **inputs: str) -> Done:
        """Run an action; `inputs` with underscores for their dashes."""
        data = read_yaml(action)
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        assert given.keys() <= data["inputs"].keys()
        values = {name: str(i.get("default", "")) for name, i in data["inputs"].items()} | given
        done, known = Done(), {f"inputs.{name}": value for name, value in values.items()}
        known["runner.temp"] = str(self.temp)
        known["github.run_attempt"] = "1"
        for number, step in enumerate(data["runs"]["steps"]):
            self._step(step, action, done, known, number)
        for name, output in data["outputs"].items():
            done.outputs[name] = _fill(output["value"], known)
        return done

    def _step(
        self, step: dict[str, Any], action: Path, done: Done, known: dict[str, str], number: int
    ) -> None:
        identity, outcome = step.get("id", f"step{number}"), "success"
        if not _holds(step.get("if", "success()"), known, failed=done.status != 0):
            outcome = "skipped"
        elif "run" in step:
            outputs = self.folder / f"{action.parent.name}-{number}"
            status = self._script(step, action, done, known, outputs)
            if status:
                outcome, done.status = "failure", done.status or status
            for line in outputs.read_text("utf-8").splitlines():
                name, _, value = line.partition("=")
                known[f"steps.{identity}.outputs.{name}"] = value
        elif "upload-artifact" in step["uses"]:
            folder = Path(_fill(step["with"]["path"], known))
            files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
            done.uploads[_fill(step["with"]["name"], known)] = files
        known[f"steps.{identity}.outcome"] = outcome
        done.steps[step["name"]] = outcome

    def _script(
        self, step: dict[str, Any], action: Path, done: Done, known: dict[str, str], outputs: Path
    ) -> int:
        outputs.touch()
        paths, environment = self.folder / "paths", self.folder / "environment"
        paths.touch()
        environment.touch()
        own = {name: _fill(value, known) for name, value in step.get("env", {}).items()}
        ours = dict(line.split("=", 1) for line in environment.read_text().splitlines())
        path = ":".join([*reversed(paths.read_text().splitlines()), os.environ["PATH"]])
        runner = {
            "PATH": path, "RUNNER_TEMP": str(self.temp), "GITHUB_OUTPUT": str(outputs),
            "GITHUB_PATH": str(paths), "GITHUB_ENV": str(environment), "GITHUB_RUN_ID": "7",
            "GITHUB_RUN_ATTEMPT": "1", "GITHUB_ACTION_PATH": str(action.parent),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
        }  # fmt: skip
        ended = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={**self.variables, **ours, **runner, **own}, cwd=self.workspace, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
        )  # fmt: skip
        done.log += ended.stdout
        return ended.returncode


def _fill(text: str, known: Mapping[str, str]) -> str:
    return _EXPRESSION.sub(lambda found: _value(found[1], known), str(text))


def _holds(condition: str, known: Mapping[str, str], *, failed: bool) -> bool:
    whole = _EXPRESSION.fullmatch(condition)
    parts = (whole[1] if whole else condition).split(" && ")
    if "always()" not in parts and failed:
        return False
    return all(
        _value(part, known) == "true" for part in parts if part not in ("always()", "success()")
    )


def _value(expression: str, known: Mapping[str, str]) -> str:
    for operator, is_equal in ((" == ", True), (" != ", False)):
        left, found, right = expression.partition(operator)
        if found:
            return str((_value(left, known) == _value(right, known)) is is_equal).lower()
    if literal := re.fullmatch(r"'([^']*)'", expression):
        return literal[1]
    if expression.startswith("steps."):
        return known.get(expression, "")  # of a step that did not get so far
    return known[expression]
