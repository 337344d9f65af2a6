"""JUnit XML: its shape as build servers read it, and what each outcome becomes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from aprverify.evidence.records import Run
from aprverify.views.junit import render_junit
from tests.evidence.builder import build_run, row

from .runs import committed, mixed, saying

# What the schemas of Jenkins and of Surefire have in common: element, attributes it must have, and
# its children in their order.
SHAPE: dict[str, tuple[set[str], list[str]]] = {
    "testsuites": ({"tests", "failures", "errors", "skipped", "time"}, ["testsuite"]),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time"},
        ["properties", "testcase"],
    ),
    "testcase": ({"classname", "name", "time"}, ["properties", "skipped", "error", "failure"]),
    "properties": (set(), ["property"]),
    "property": ({"name", "value"}, []),
    "failure": ({"message", "type"}, []),
    "error": ({"message", "type"}, []),
    "skipped": ({"message"}, []),
}


def check_shape(element: ET.Element) -> None:
    """Attributes, children and their order, all the way down."""
    required, children = SHAPE[element.tag]
    assert required <= element.attrib.keys()
    order = [children.index(child.tag) for child in element]
    assert order == sorted(order)
    for child in element:
        check_shape(child)


def cases(run: Run) -> dict[str, ET.Element]:
    """The test cases by the key of their entry."""
    root = ET.fromstring(render_junit(run))
    return {properties(case)["key"][0]: case for case in root.iter("testcase")}


def properties(case: ET.Element) -> dict[str, list[str]]:
    """The properties of a case; one may stand several times."""
    found: dict[str, list[str]] = {}
    for item in case.iter("property"):
        found.setdefault(item.attrib["name"], []).append(item.attrib["value"])
    return found


def test_the_document_has_the_shape_that_build_servers_read(tmp_path: Path) -> None:
    """Of one of everything, of an empty run, and of what is committed."""
    empty = build_run(tmp_path / "empty", ())
    for run in (mixed(tmp_path / "mixed"), empty, *committed()):
        root = ET.fromstring(render_junit(run))
        assert root.tag == "testsuites"
        check_shape(root)
        assert len(root) > 0


def test_the_counts_are_those_of_the_cases(tmp_path: Path) -> None:
    """Of every suite and of the whole, and every row is there."""
    run = mixed(tmp_path)
    root = ET.fromstring(render_junit(run))
    for element in (root, *root.iter("testsuite")):
        found = list(element.iter("testcase"))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.attrib[name]) == sum(case.find(tag) is not None for case in found)
        assert int(element.attrib["tests"]) == len(found)
    assert cases(run).keys() == {row.key for row in run.rows}


@pytest.mark.parametrize(
    ("key", "outcome", "tag", "words"),
    [
        ("TEST-A[cpu-f32]", "held", None, ""),
        ("TEST-A[cpu-f32]!drop-bias", "caught", None, ""),
        ("TEST-A[cuda-bf16]", "falsified", "failure", "claim c1: loss <= bound (NaN <= 1 nats)"),
        ("TEST-A[cpu-f32]!eps", "survived", "failure", "eps changed outputs, and yet every claim"),
        ("TEST-A[cuda-f32]", "broken", "error", "broken, setup: 50% <b>x</b>"),
        ("TEST-A[cuda-f32]!eps", "not_run", "skipped", "not_run, asset: 50%"),
    ],
)
def test_every_outcome_has_its_element_and_its_properties(
    tmp_path: Path, key: str, outcome: str, tag: str | None, words: str
) -> None:
    """Skipped ones and errors carry contract, gate and invariant like all others."""
    case = cases(mixed(tmp_path))[key]
    found = properties(case)
    assert found["outcome"] == [outcome]
    assert (found["contract"], found["gate"], found["invariant"]) == (
        ["C-A"],
        ["GATE-A"],
        ["INV-A"],
    )
    ending = [child for child in case if child.tag != "properties"]
    assert [child.tag for child in ending] == ([tag] if tag else [])
    assert all(words in child.attrib["message"] for child in ending)


def test_inconclusive_is_an_error_and_not_a_pass(tmp_path: Path) -> None:
    """Nobody knows whether the claim holds."""
    (case,) = cases(build_run(tmp_path, (row("inconclusive"),))).values()
    assert case.find("error") is not None


def test_whatever_a_trainer_said_leaves_the_document_whole(tmp_path: Path) -> None:
    """Control characters, which XML cannot hold, and markup."""
    text = render_junit(saying(tmp_path, "\x00\x07<b>\ufffe\"'&]]>\n"))
    check_shape(ET.fromstring(text))
    assert "\x00" not in text and "&lt;b&gt;" in text
