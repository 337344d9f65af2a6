"""What was claimed: every contract with its tests and claims, run or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from aprverify.evidence.markdown import count
from aprverify.evidence.records import ContractRecord, TestRecord
from aprverify.views.html.markup import Markup, element
from aprverify.views.html.outline import Outline
from aprverify.views.html.values import facts


def claims(outline: Outline) -> Markup:
    """The section: contracts as they read when the run was made."""
    return element(
        "section",
        element("h2", "What is claimed"),
        element("p", "The contracts as they read when the run was made, with every claim."),
        [_contract(outline, contract) for contract in outline.run.contracts],
        id="claims",
    )


def _contract(outline: Outline, contract: ContractRecord) -> Markup:
    return element(
        "section",
        element("h3", contract.id),
        element("p", contract.title),
        facts(
            [
                ("File", element("code", contract.path)),
                ("Version", contract.version),
                ("SHA-256", element("code", contract.sha256)),
            ]
        ),
        [_test(outline, test) for test in contract.tests],
        id=outline.fragment("contract", contract.id),
        class_="contract",
    )


def _test(outline: Outline, test: TestRecord) -> Markup:
    # The fragment stands inside: a browser opens `details` on its way to what is in there.
    return element(
        "details",
        element("summary", element("h4", test.id), " ", element("span", test.title)),
        element(
            "div",
            facts(list(_facts(outline, test))),
            id=outline.fragment("test", test.id),
        ),
        class_="test",
    )


def _facts(outline: Outline, test: TestRecord) -> Iterator[tuple[str, str | list[str]]]:
    yield (
        "Claims",
        element(
            "ul",
            [
                element("li", name, ": ", element("code", text))
                for name, text in test.claims.items()
            ],
        ),
    )
    yield "Falsifier", element("code", test.falsifier)
    yield "Invariants", [_invariant(outline, test, name) for name in test.invariants]
    gates = outline.gates_of.get(test.id, {})
    yield "Gates", [outline.link("gate", position, name) for position, name in gates.items()]
    yield "Must catch", [element("code", name) for name in test.counter_examples]
    scales = Counter((case.scale, case.device) for case in test.cases.values())
    yield "Cases", [f"{amount} at {s} scale on {d}" for (s, d), amount in scales.items()]
    yield "Each case", _cases(outline, test)
    yield "If it fails", test.if_fails


def _invariant(outline: Outline, test: TestRecord, name: str) -> Markup:
    first = outline.introduces(test, name)
    return element("span", name, id=outline.fragment("invariant", name) if first else None)


def _cases(outline: Outline, test: TestRecord) -> Markup:
    return element(
        "details",
        element("summary", count(len(test.cases), "case")),
        element(
            "ul",
            [
                element(
                    "li",
                    outline.link("entry", f"{test.id}[{case}]", case or "(without parameters)"),
                )
                for case in test.cases
            ],
        ),
    )
