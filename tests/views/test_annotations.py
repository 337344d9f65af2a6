"""Workflow commands: a line each, escaped, at the contract's line, and never none for bad news."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aprverify.contract.lint import load_suite
from aprverify.evidence import verdict
from aprverify.evidence.describe import describe_contract
from aprverify.suite import find_suite
from aprverify.views.annotations import _command, render_annotations
from tests.evidence.builder import Body, build_run, reason, row

from .runs import NASTY, committed, mixed


def unescape(text: str) -> str:
    """What the runner makes of a property; the percent sign last."""
    for code, character in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r")):
        text = text.replace(code, character)
    return text.replace("%25", "%")


def test_every_failure_has_its_command_at_the_line_of_its_test(tmp_path: Path) -> None:
    """Worst first; what held, was caught or did not run has none."""
    lines = render_annotations(mixed(tmp_path)).splitlines()
    place = "::error file=contracts/a.yaml,line=7,title=TEST-A "
    assert [line.partition("::TEST-A")[0] for line in lines] == [
        f"{place}falsified",
        f"{place}survived",
        f"{place}broken",
    ]


def test_no_text_can_add_a_command(tmp_path: Path) -> None:
    """Line breaks, percent signs and commands in what a trainer said are data."""
    text = render_annotations(mixed(tmp_path))
    assert text.count("\n") == 3 and "\r" not in text
    assert all(line.startswith("::error file=") for line in text.splitlines())
    assert "50%25 <b>" in text


@pytest.mark.parametrize("name", ["a,b:c%d.yaml", "a\nb"])
def test_a_property_is_escaped(name: str) -> None:
    """Commas and colons too: they end properties."""
    command = _command(name, "m: 1, 2", {"file": name})
    (told,) = re.findall(r"^::error (.*)::m: 1, 2$", command)
    assert ":" not in told
    found = dict(part.split("=", 1) for part in told.split(","))
    assert {key: unescape(value) for key, value in found.items()} == {"file": name, "title": name}


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ((row("falsified"),), {}),
        ((row("survived", defect="drop-bias"),), {}),
        ((row("broken", reason=reason("setup", NASTY)),), {}),
        ((row("inconclusive"),), {}),
        ((row(), row("not_run", defect="drop-bias")), {"require": ["cuda"]}),
        ((row("not_run"),), {}),
        ((), {}),
        ((row(),), {"interrupted": True}),
    ],
)
def test_a_run_that_does_not_pass_never_leaves_without_an_error(
    tmp_path: Path, rows: tuple[Body, ...], options: Body
) -> None:
    """Set-up errors, what was required, an interruption and an empty run included."""
    run = build_run(tmp_path, rows, **options)
    assert verdict.exit_code(run, run.header.require) != verdict.OK
    assert render_annotations(run).startswith("::error ")


def test_a_run_that_passes_says_nothing(tmp_path: Path) -> None:
    """An error that is none would teach people to look away."""
    assert render_annotations(build_run(tmp_path)) == ""


def test_a_run_from_before_lines_were_recorded_points_at_the_first_line(tmp_path: Path) -> None:
    """The committed runs among them."""
    assert "a.yaml,line=1," in render_annotations(build_run(tmp_path, (row("falsified"),)))
    assert all(
        test.line is None or test.line > 0
        for run in committed()
        for contract in run.contracts
        for test in contract.tests
    )


def test_a_run_records_the_line_of_each_test() -> None:
    """As the contract's file has it: the id stands there."""
    suite = find_suite("bundled")
    for contract in load_suite(suite).contracts[:3]:
        lines = contract.path.read_text("utf-8").splitlines()
        for test in describe_contract(contract, suite.root)["tests"]:
            assert test["id"] in lines[test["line"] - 1]
