"""What is true of the files here: the contracts, and the source id of every entry.

The gates that count are those of the checkout, never those that a run declares: a run that leaves
a contract out could otherwise not be told from one in which all of it holds.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from aprverify.contract.lint import Loaded, load_suite
from aprverify.evidence.describe import describe_contract
from aprverify.evidence.records import ContractRecord, contract_from
from aprverify.plan import Entry, make_plan
from aprverify.planting import PROTOCOL, load_defects
from aprverify.source_id import current_source_ids
from aprverify.suite import Suite, SuiteError, find_suite


@dataclass(frozen=True)
class Checkout:
    """The files that evidence is held against.

    Attributes:
        suite: the suite as the checkout has it.
        loaded: its contracts; linted, and without a problem where a gate is judged.
        contracts: the same as a run would record them.
        entries: every planned entry by key.
    """

    suite: Suite
    loaded: Loaded
    contracts: tuple[ContractRecord, ...]
    entries: Mapping[str, Entry]


@contextmanager
def suite_at(suite: Suite, base: Path | None) -> Iterator[Suite]:
    """The suite as the checkout `base` has it; None: as it is installed.

    Its defects are imported from there, as `aprverify verify` would; aprverify itself is not, so
    that a checkout brings no judge of its own.

    Raises:
        SuiteError: there is no such suite in `base`.
    """
    if base is None or base.resolve() == suite.root.resolve():
        yield suite
        return
    base, path = base.resolve(), list(sys.path)
    sys.path.insert(0, str(base))
    _forget(suite)
    try:
        moved = find_suite(suite.name)
        if moved.root.resolve() != base:
            raise SuiteError(
                f"--base {base}: the suite {suite.name} is not in it; name the root of a checkout"
            )
        yield moved
    finally:
        sys.path[:] = path
        _forget(suite)


def open_checkout(suite: Suite) -> Checkout:
    """Read and lint the contracts of a suite.

    Problems are left in ``loaded.problems``, and nothing may be judged where there is one.
    """
    loaded = load_suite(suite)
    return Checkout(
        suite=suite,
        loaded=loaded,
        contracts=tuple(contract_from(describe_contract(c, suite.root)) for c in loaded.contracts),
        entries={e.key: e for e in make_plan(loaded.contracts, teeth="declared")},
    )


def present_source_ids(checkout: Checkout, subject: str) -> dict[str, str]:
    """The source id of every entry's key as the files stand; `subject`: a name, or spelled out.

    Raises:
        SuiteError: the subject's files cannot be found, so that nothing can be said of them.
    """
    target = checkout.suite.subject(subject)
    module = target.partition(":")[0]
    if not _is_found(checkout.suite, module):
        raise SuiteError(
            f"subject {subject}: there is no module {module} here, so that nobody can say which "
            "files its rows are about; install it or put its folder on PYTHONPATH"
        )
    defects = load_defects(checkout.suite)
    return current_source_ids(checkout.suite, checkout.entries.values(), target, defects)


def plantable(checkout: Checkout, subject: str) -> frozenset[str]:
    """The keys of planted defects that apply to `subject`, whatever its rows say.

    Every defect is written for the suite's own trainer, its first subject. Those of the protocol
    alter what any subject hands out; those of its source may find nothing to alter in another one.
    """
    own = same_subject(checkout.suite, subject, checkout.suite.default_subject)
    defects = load_defects(checkout.suite)
    return frozenset(
        key
        for key, entry in checkout.entries.items()
        if entry.defect is not None
        and (own or (entry.defect in defects and defects[entry.defect].kind == PROTOCOL))
    )


def same_subject(suite: Suite, one: str, other: str) -> bool:
    """Whether two spellings name one subject; a name that the suite does not know is its own."""

    def spelled_out(name: str) -> str:
        try:
            return suite.subject(name)
        except SuiteError:
            return name

    return spelled_out(one) == spelled_out(other)


def _forget(suite: Suite) -> None:
    package = suite.package.partition(".")[0]
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _is_found(suite: Suite, module: str) -> bool:
    if module.partition(".")[0] in suite.sources:
        base = suite.root.joinpath(*module.split("."))
        return base.with_name(f"{base.name}.py").is_file() or (base / "__init__.py").is_file()
    try:
        return find_spec(module) is not None
    except Exception:  # the packages above it are imported, and may raise anything
        return False
