"""The files that a runner reads, parsed, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ACTIONS = ROOT / ".github" / "actions"
VERIFY = ACTIONS / "verify" / "action.yml"
GATE = ACTIONS / "gate" / "action.yml"
WORKFLOW = ROOT / ".github" / "workflows" / "verify.yml"
CONTAINERFILE = ROOT / "Containerfile"
PAGE = ROOT / "docs" / "ci.md"

_COMMAND = re.compile(r"(?<![\w/.\-=])aprverify ((?:--suite|[a-z]+)\b.*)")
_ARRAY = re.compile(r"^\s*(?:.*\s)?arguments\+?=\((.*?)\)(?:\s*;;)?\s*$", re.MULTILINE)
_EXPANSION = re.compile(r"\$\{[^}]*\}|\$\w+|\$\(.*\)")
_VALUES = {"$REQUIRE": "cuda", "$ONLY_LANE": "cuda", "$DEAREST": "15"}
"""What is not free text; all else may be any word."""
_ENDS = ("||", "&&", "|", ";", "2>&1")


def read_yaml(path: Path) -> Any:
    """A workflow or an action. The key ``on`` of YAML 1.1 is spelled out again."""
    data = yaml.safe_load(path.read_text("utf-8"))
    return {"on" if key is True else key: value for key, value in data.items()}


def steps_of(path: Path) -> list[dict[str, Any]]:
    """All steps of a workflow's jobs, or of an action."""
    data = read_yaml(path)
    if "runs" in data:
        return list(data["runs"]["steps"])
    return [step for job in data["jobs"].values() for step in job["steps"]]


def scripts() -> dict[str, str]:
    """Every script that a runner runs, by where it stands."""
    found = {
        f"{path.parent.name}: {step.get('name', '?')}": step["run"]
        for path in (VERIFY, GATE, WORKFLOW)
        for step in steps_of(path)
        if "run" in step
    }
    return {**found, **{p.name: p.read_text("utf-8") for p in sorted(ACTIONS.glob("*.sh"))}}


def command_lines(script: str) -> Iterator[list[str]]:
    """The arguments of each call of aprverify in a script; an array gives all that may be in it."""
    script = re.sub(r"\\\n\s*", " ", script)
    code = "\n".join(line for line in script.split("\n") if not line.lstrip().startswith("#"))
    array = [word for text in _ARRAY.findall(code) for word in shlex.split(text)]
    for call in _COMMAND.findall(code):
        words: list[str] = []
        for word in shlex.split(call):
            if word in _ENDS or ">" in word:
                break
            words += array if word.startswith("${arguments[@]") else [word]
        yield [_VALUES.get(word, _EXPANSION.sub("VALUE", word)) for word in words]


def page_command_lines(text: str) -> Iterator[list[str]]:
    """The arguments of each call that a Markdown page, or a comment, shows between backticks."""
    for call in re.findall(r"`aprverify ([^`]+)`", text):
        yield shlex.split(call)


def container_command_line(text: str) -> list[str]:
    """What the container runs unless it is told otherwise."""
    words = [
        word
        for kind in ("ENTRYPOINT", "CMD")
        for body in re.findall(rf"^{kind} \[(.*)\]$", text, re.MULTILINE)
        for word in shlex.split(body.replace(",", " "))
    ]
    assert words[0] == "aprverify"
    return words[1:]
