"""A run in the order of its page: what belongs to what, and the fragment of each thing on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

from aprverify.evidence.order import in_plan_order
from aprverify.evidence.records import Run, TestRecord
from aprverify.views.html.markup import Markup, anchor, element

_TAKEN_BY_THE_PAGE = (
    "summary", "gates", "recorded", "entries", "claims", "environments", "provenance",
    "filters", "search", "outcome", "device", "contract", "found",
)  # fmt: skip


class Outline:
    """A run with its rows in the contracts' order, whatever order its workers finished in."""

    def __init__(self, run: Run) -> None:
        self.run = in_plan_order(run)
        self.rows = self.run.rows
        self.tests = {test.id: test for contract in run.contracts for test in contract.tests}
        self.environments = {found.id: found for found in self.run.environments}

    @cached_property
    def gates_of(self) -> dict[str, dict[int, str]]:
        """The gates that rest on each test: their ids by position on the page."""
        found: dict[str, dict[int, str]] = defaultdict(dict)
        gates = [gate for contract in self.run.contracts for gate in contract.gates]
        for position, gate in enumerate(gates):
            for test in gate.tests:
                found[test][position] = gate.id
        return found

    def fragment(self, kind: str, name: str | int) -> str:
        """The HTML id of a thing. A gate goes by its position: nothing keeps its id from repeating.

        Raises:
            KeyError: the page has no such thing.
        """
        return self._fragments[kind, str(name)]

    def link(self, kind: str, name: str | int, text: str) -> Markup:
        """A link to a thing on the page, or bare text where it is not there."""
        if (kind, str(name)) not in self._fragments:
            return element("span", text)
        return element("a", text, href=f"#{self.fragment(kind, name)}")

    def introduces(self, test: TestRecord, invariant: str) -> bool:
        """Whether the test is the first on the page to name the invariant."""
        return self._first_test[invariant] == test.id

    @cached_property
    def _first_test(self) -> dict[str, str]:
        first: dict[str, str] = {}
        for test in self.tests.values():
            for invariant in test.invariants:
                first.setdefault(invariant, test.id)
        return first

    @cached_property
    def _fragments(self) -> dict[tuple[str, str], str]:
        taken = set(_TAKEN_BY_THE_PAGE)
        found: dict[tuple[str, str], str] = {}
        for kind, name, spelled in self._named():
            fragment = anchor(spelled)
            # A gate often has the name of its test: the first on the page gets the plain fragment.
            while fragment in taken:
                fragment = f"{kind}-{fragment}"
            taken.add(fragment)
            found[kind, name] = fragment
        return found

    def _named(self) -> Iterator[tuple[str, str, str]]:
        gates = [gate.id for contract in self.run.contracts for gate in contract.gates]
        yield from (("gate", str(i), name) for i, name in enumerate(gates))
        yield from (("contract", c.id, c.id) for c in self.run.contracts)
        yield from (("test", name, name) for name in self.tests)
        yield from (("invariant", name, name) for name in self._first_test)
        yield from (("entry", row.key, row.key) for row in self.rows)
        yield from (("environment", name, name) for name in self.environments)
