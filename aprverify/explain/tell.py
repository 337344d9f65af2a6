"""The story of a run or of one id in it: a pure function of the run and the evidence beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from aprverify.evidence.closest import Near, nearest_first
from aprverify.evidence.markdown import count, observed_and_bound
from aprverify.evidence.records import ContractRecord, Row, Run, TestRecord
from aprverify.evidence.sentences import not_shown, verdict_sentence
from aprverify.explain.failures import Failures
from aprverify.explain.others import others
from aprverify.explain.story import Story

_CLOSEST = 3


class UnknownName(Exception):
    """The run has nothing of that name. `known`: what it has."""

    def __init__(self, name: str, known: AbstractSet[str]) -> None:
        super().__init__(name)
        self.known = known


def tell(
    run: Run,
    evidence: Sequence[Run] = (),
    name: str | None = None,
    commands: AbstractSet[str] = frozenset(),
) -> Story:
    """What happened in `run`, or in what `name` stands for in it.

    `name` is a contract, gate, invariant, test, family, or an entry's whole key. `evidence`: runs
    whose planted defects the failures are held against besides the run's own. `commands`: the
    subcommands of this build that may be advised.

    Raises:
        UnknownName: the run has nothing of that name.
    """
    rows = list(run.rows) if name is None else _rows_of(run, name)
    same = [other for other in evidence if other.header.subject == run.header.subject]
    failures = Failures(run, same, commands)
    keys = None if name is None else frozenset(row.key for row in rows)
    told = failures.told(keys)
    rest = tuple(others(run, rows))
    quiet = not told and all(other.kind == "not_run" for other in rest)
    return Story(
        run_id=run.header.run_id,
        sha256=run.sha256,
        subject=run.header.subject,
        about=name or "the whole run",
        verdict=verdict_sentence(run) if name is None else _outcomes(rows),
        notes=tuple(_notes(run, evidence)),
        failures=tuple(told),
        others=rest,
        closest=tuple(_near(n) for n in nearest_first(rows)[:_CLOSEST]) if quiet else (),
        not_shown=not_shown(run),
    )


def _rows_of(run: Run, name: str) -> list[Row]:
    found = [row for row in run.rows if row.key == name]
    if found:
        return found
    named = {
        test.id: _names(contract, test) for contract in run.contracts for test in contract.tests
    }
    tests = {test for test, names in named.items() if name in names}
    found = [row for row in run.rows if row.test in tests]
    if not tests:
        raise UnknownName(name, {n for names in named.values() for n in names})
    return found


def _names(contract: ContractRecord, test: TestRecord) -> frozenset[str]:
    gates = {gate.id for gate in contract.gates if test.id in gate.tests}
    return frozenset({contract.id, test.id, test.id.partition(".")[0], *test.invariants} | gates)


def _outcomes(rows: Sequence[Row]) -> str:
    if not rows:
        return "This run has no entry of it: it was not selected."
    seen = Counter((row.kind, row.outcome) for row in rows)
    nouns = {"claim": ("claim entry", "claim entries"), "teeth": ("planted defect", "")}
    told = [
        f"{count(n, *nouns[kind])} {outcome.replace('_', ' ')}"
        for (kind, outcome), n in sorted(seen.items())
    ]
    return f"{', '.join(told)}."


def _near(near: Near) -> str:
    observed, bound = observed_and_bound(near.comparison)
    left = f"{near.margin:+.2g} of the tolerance left"
    return f"{near.row.key}, claim {near.comparison.claim}: {observed} {bound}, {left}"


def _notes(run: Run, evidence: Sequence[Run]) -> Iterator[str]:
    if run.footer.interrupted:
        yield "The run was interrupted: what follows is about what had finished by then."
    if not run.header.selection.everything:
        yield "Only a part of the suite was asked for: what it left out neither held nor failed."
    for other in evidence:
        if other.header.subject != run.header.subject:
            yield (
                f"{other.header.run_id} is about the subject {other.header.subject}, not "
                f"{run.header.subject}, and was not compared with."
            )
