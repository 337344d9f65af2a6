"""Workflow and actions are well formed, ask for little, and trust nothing that others wrote."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from aprverify import cli
from tests.runner.files import (
    ACTIONS,
    CONTAINERFILE,
    GATE,
    PAGE,
    ROOT,
    VERIFY,
    WORKFLOW,
    command_lines,
    container_command_line,
    page_command_lines,
    read_yaml,
    scripts,
    steps_of,
)

_FIRST_PARTY = {
    "actions/checkout@v4",
    "actions/setup-python@v5",
    "actions/upload-artifact@v4",
    "actions/download-artifact@v4",
}
_LOCAL = {"./.github/actions/verify": VERIFY, "./.github/actions/gate": GATE}
_FILES = [VERIFY, GATE, WORKFLOW]
_NOT_UNREVIEWED = "github.event_name != 'pull_request'"
_ON_MAIN = "github.ref == 'refs/heads/main'"


def _calls() -> list[tuple[str, list[str]]]:
    found = [(name, call) for name, text in scripts().items() for call in command_lines(text)]
    shown = [
        *((PAGE.name, call) for call in page_command_lines(PAGE.read_text("utf-8"))),
        *((CONTAINERFILE.name, c) for c in page_command_lines(CONTAINERFILE.read_text("utf-8"))),
        (CONTAINERFILE.name, container_command_line(CONTAINERFILE.read_text("utf-8"))),
    ]
    return [*found, *shown]


@pytest.mark.parametrize("name", scripts())
def test_every_script_is_bash(name: str) -> None:
    """`bash -n` takes every run block and every script."""
    done = subprocess.run(["bash", "-n"], input=scripts()[name], text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", scripts())
def test_no_script_has_an_expression_in_it(name: str) -> None:
    """What others may have written reaches a script through its environment only."""
    assert "${{" not in scripts()[name]


@pytest.mark.parametrize(
    ("where", "words"), _calls(), ids=lambda v: v if isinstance(v, str) else " ".join(v)[:40]
)
def test_every_command_line_is_accepted(where: str, words: list[str]) -> None:
    """The real parser takes every call of aprverify in scripts, docs and container."""
    try:
        cli._parser().parse_args(words)
    except SystemExit as ended:
        pytest.fail(f"{where}: aprverify {' '.join(words)}: exit status {ended.code}")


def test_the_command_lines_are_found() -> None:
    """Each subcommand that a runner needs is among the calls checked, with its optional flags."""
    told = [" ".join(words) for _, words in _calls()]
    for wanted in (
        "fetch", "verify .*--run-dir .*--subject .*--require .*--lane .*--dearest .*--asset",
        "merge .*--out",
        "gate .*--policy .*--trusted .*--require-signed", "gate .*--json", "sign .*--key",
        "sign .*--identity .*--trusted", "report .*--html", "report .*--junit",
        "report .*--in-toto", "report .*--job-summary", "report .*--annotations", "check", "show",
        "diff", "verify --require cuda --run-dir /runs/gpu", "sign --generate-key",
    ):  # fmt: skip
        assert any(re.search(wanted, call) for call in told), wanted


@pytest.mark.parametrize("path", _FILES, ids=lambda p: p.parent.name)
def test_only_known_actions_are_used(path: Path) -> None:
    """First-party actions by major version, and those of this repository."""
    used = {step["uses"] for step in steps_of(path) if "uses" in step}
    assert used <= _FIRST_PARTY | _LOCAL.keys()
    # A local action inside an action would be looked for in the caller's repository.
    assert path == WORKFLOW or used <= _FIRST_PARTY


def _uses_with_inputs() -> list[tuple[Path, dict[str, Any]]]:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    page = [
        step for b in blocks for job in yaml.safe_load(b)["jobs"].values() for step in job["steps"]
    ]
    found = []
    for step in (*steps_of(WORKFLOW), *page):
        name = re.search(r"/\.github/actions/(\w+)", step.get("uses", ""))
        if name:
            found.append((ACTIONS / name[1] / "action.yml", step["with"]))
    return found


def test_callers_give_inputs_that_exist() -> None:
    """Workflow and page name only inputs that the actions have, and all required ones."""
    uses = _uses_with_inputs()
    assert len(uses) == 5
    for action, given in uses:
        inputs = read_yaml(action)["inputs"]
        assert given.keys() <= inputs.keys()
        assert {name for name, i in inputs.items() if i.get("required")} <= given.keys()


@pytest.mark.parametrize("path", [VERIFY, GATE], ids=lambda p: p.parent.name)
def test_every_input_is_used(path: Path) -> None:
    """An input that nothing reads would be a promise that is not kept."""
    text = path.read_text("utf-8")
    for name in read_yaml(path)["inputs"]:
        assert re.search(rf"inputs\.{name}\b(?!-)", text), name


def test_jobs_ask_for_little_and_end() -> None:
    """Read permission only, no credentials left behind, a time limit on every job."""
    workflow = read_yaml(WORKFLOW)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert "pull_request_target" not in workflow["on"]
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert 0 < job["timeout-minutes"] <= 120
    checkouts = [step for step in steps_of(WORKFLOW) if "checkout" in step.get("uses", "")]
    assert len(checkouts) == 3
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_a_pull_request_reaches_neither_gpu_nor_key() -> None:
    """Nobody has reviewed its code: no machine that outlives the job, no signature."""
    jobs = read_yaml(WORKFLOW)["jobs"]
    assert _NOT_UNREVIEWED in jobs["gpu"]["if"]
    keys = [(name, key) for name, job in jobs.items() for key in _keys_of(job)]
    assert {name for name, _ in keys} == {"cpu", "gpu", "gate"}
    for name, key in keys:
        assert f"{_NOT_UNREVIEWED} && {_ON_MAIN} && secrets." in key, name


def test_the_key_is_of_an_environment_that_main_alone_may_use() -> None:
    """A workflow is started by hand on any branch, with whatever that branch makes of it."""
    for name, job in read_yaml(WORKFLOW)["jobs"].items():
        if _keys_of(job):
            wanted = f"{_NOT_UNREVIEWED} && {_ON_MAIN} && 'aprverify-signing' || ''"
            assert job["environment"] == f"${{{{ {wanted} }}}}", name
    assert "`aprverify-signing`" in PAGE.read_text("utf-8")


def _keys_of(job: dict[str, Any]) -> list[str]:
    keys = [step.get("with", {}).get("signing-key", "") for step in job["steps"]]
    return [key for key in keys if key]


def test_the_gate_is_never_skipped() -> None:
    """A required check that is skipped counts as passed: the page says to require this one."""
    gate = read_yaml(WORKFLOW)["jobs"]["gate"]
    assert (gate["name"], gate["needs"], gate["if"]) == ("Gate", ["cpu", "gpu"], "${{ always() }}")
    passing_on, *judging = gate["steps"]
    assert passing_on["if"] == "${{ github.event_name == 'pull_request' }}"
    assert {step["if"] for step in judging} == {f"${{{{ {_NOT_UNREVIEWED} }}}}"}
    assert judging[-1]["uses"] == "./.github/actions/gate"


@pytest.mark.parametrize(
    ("result", "status"),
    [("success", 0), ("failure", 1), ("cancelled", 1), ("skipped", 1), ("", 1)],
)
def test_on_a_pull_request_the_gate_is_the_cpu_lane(
    tmp_path: Path, result: str, status: int
) -> None:
    """It fails unless the lane succeeded, and says what it did not judge."""
    step = read_yaml(WORKFLOW)["jobs"]["gate"]["steps"][0]
    assert step["env"] == {"CPU_LANE": "${{ needs.cpu.result }}"}
    summary = tmp_path / "summary"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={**os.environ, "CPU_LANE": result, "GITHUB_STEP_SUMMARY": str(summary)},
        check=False,
    )
    assert done.returncode == status
    assert "Not judged on a pull request: the GPU lane" in summary.read_text()


@pytest.mark.parametrize("path", [VERIFY, GATE], ids=lambda p: p.parent.name)
def test_uploads_do_not_depend_on_what_came_before(path: Path) -> None:
    """Every upload is always tried, under a name that no other attempt takes; none is replaced."""
    uploads = [step for step in steps_of(path) if "upload" in step.get("uses", "")]
    assert len(uploads) == 2
    for step in uploads:
        assert "always()" in step["if"]
        assert "overwrite" not in step["with"]
        assert re.search(r"outputs\.artifact|github\.run_attempt", step["with"]["name"])


def test_container_copies_what_a_run_needs() -> None:
    """Every package of the project, with constraints; no user root, no registry, no fixed base."""
    text = CONTAINERFILE.read_text("utf-8")
    copied = [w for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for w in line.split()]
    assert all((ROOT / name).exists() for name in copied if name not in ("./", "."))
    assert {"aprverify/", "contracts/", "falsifiers/", "trainer/", "constraints.txt"} <= {*copied}
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == "${UID}"
    assert re.search(r"^ARG BASE$\n^FROM \$\{BASE\}$", text, re.MULTILINE)
    assert "KEEP_TORCH=true" in text


@pytest.mark.parametrize("path", [*_FILES, CONTAINERFILE, PAGE, *sorted(ACTIONS.glob("*.sh"))])
def test_nothing_names_a_registry_host(path: Path) -> None:
    """Where packages and images come from is the machine's own business."""
    hosts = r"(?i)pypi|docker\.io|ghcr|quay\.io|nvcr|download\.pytorch|https?://"
    assert not re.search(hosts, path.read_text("utf-8"))


def test_the_page_has_every_exit_code() -> None:
    """The page's table has the codes of both commands' own help, and no other."""
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text("utf-8"), re.M)}
    helped = _codes("verify") | _codes("gate")
    assert table == helped | {130}


def _codes(command: str) -> set[int]:
    done = subprocess.run(
        [sys.executable, "-m", "aprverify", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    told = done.stdout.partition("exit codes")[2]
    return {int(code) for code in re.findall(r"(?:^  |[:;]\s)(\d+)\s", told, re.MULTILINE)}
