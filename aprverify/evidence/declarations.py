"""Whether a contract line can be taken at its word: no name twice, no test that no gate shows.

JSON lists may repeat an id that a dictionary then keeps once, the last and mildest one; and a gate
that leaves a test out would be met without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any


def repeated(body: Mapping[str, Any]) -> Iterator[str]:
    """What a contract line declares twice, one sentence each."""
    yield from _twice("gate", (gate["id"] for gate in body["gates"]))
    yield from _twice("invariant", (one["id"] for one in body.get("invariants", ())))
    for gate in body["gates"]:
        yield from _twice(f"gate {gate['id']}: test", gate["tests"])
    for test in body["tests"]:
        of = f"test {test['id']}:"
        yield from _twice(f"{of} claim", (claim["id"] for claim in test["claims"]))
        yield from _twice(f"{of} case", (case["id"] for case in test["cases"]))
        yield from _twice(f"{of} counter-example", test["counter_examples"])


def unbound(body: Mapping[str, Any]) -> Iterator[str]:
    """Tests without a gate and gates of unknown tests: neither is ever written."""
    tests = {test["id"] for test in body["tests"]}
    gated = {test for gate in body["gates"] for test in gate["tests"]}
    yield from (f"gate of {name}, which the contract does not declare" for name in gated - tests)
    yield from (f"no gate rests on {name}" for name in sorted(tests - gated))


def unreadable(body: Mapping[str, Any]) -> Iterator[str]:
    """Names that a terminal or a page would not show as they are, and paths that lead elsewhere."""
    names = [body["id"], body["version"], body["path"]]
    names += [gate["id"] for gate in body["gates"]]
    for test in body["tests"]:
        names += [test["id"], test["falsifier"], *test["counter_examples"]]
        names += [item["id"] for item in (*test["claims"], *test["cases"])]
    yield from invisible(names)
    path = PurePosixPath(body["path"])
    if path.is_absolute() or ".." in path.parts or "\\" in body["path"]:
        yield f"path {body['path']!r} leads out of the repository"


def invisible(names: Iterable[str]) -> Iterator[str]:
    """Names with control characters, or characters of no width or of another direction."""
    yield from (
        f"the name {name!a} has characters that do not show"
        for name in names
        if not name.isprintable()
    )


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{what} {name} is declared twice" for name, n in Counter(names).items() if n > 1)
