"""The matrix of a run for people: what nobody catches, what else each falsifier does, how soon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from aprverify.evidence.crosses import OUTCOMES, Cross, Matrix
from aprverify.evidence.markdown import clip, code, count, details, escape, number, table
from aprverify.evidence.matrix_rules import Judged, judge_matrix, killers, owners
from aprverify.evidence.records import Run
from aprverify.evidence.terminal import one_line

_SHOWN = 20
_DETAIL = 120
_SOON = {"before training starts": 0, "within one step": 1, "within 10 steps": 10}


def matrix_lines(run: Run) -> list[str]:
    """The section of a report; nothing where a run has no matrix."""
    matrix = run.matrix
    if matrix is None:
        return []
    judged = judge_matrix(run)
    return [
        *_account(matrix),
        "",
        *_findings(judged),
        "",
        "How soon a kill was seen, in optimizer steps that the falsifier had let the subject take:",
        "",
        *table(("caught", "kills", "defects"), _latency(matrix), "lrr"),
        "",
        *details(f"every defect ({len(owners(run))})", list(_by_defect(run, matrix))),
        "",
        *details(f"every falsifier ({len(matrix.columns)})", list(_by_column(matrix))),
        "",
        *details(f"broken ({matrix.counts['broken']})", list(_broken(matrix))),
        "",
        *details(
            f"falsifiers that were not crossed ({len(matrix.left_out)})",
            table(("test", "why"), ([code(t), escape(w)] for t, w in matrix.left_out.items())),
        ),
    ]


def matrix_summary(run: Run) -> list[str]:
    """A few lines for a terminal, what is wrong last."""
    assert run.matrix is not None
    judged = judge_matrix(run)
    lines = [one_line(line) for line in _plain_account(run.matrix)]
    told = Counter(row.outcome for row in run.rows if row.kind == "teeth")
    lines.append("declared: " + ", ".join(f"{n} {o.replace('_', ' ')}" for o, n in told.items()))
    if judged.open_defects or judged.open_tests:
        lines.append(
            f"not shown here: {count(len(judged.open_defects), 'defect')} and "
            f"{count(len(judged.open_tests), 'falsifier')} could not be tried on this machine"
        )
    lines += [f"{finding.kind.upper()} {one_line(finding.text)}" for finding in judged.findings]
    return [*lines, "" if judged.findings else "every rule of the matrix is met"]


def _plain_account(matrix: Matrix) -> Iterator[str]:
    counts = matrix.counts
    told = ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in OUTCOMES)
    defects = len({cross.defect for cross in matrix.crosses})
    yield (
        f"{len(matrix.crosses)} of {matrix.planned} pairs ({defects} defects, "
        f"{len(matrix.columns)} falsifiers on {matrix.device}): {told}"
    )
    yield (
        f"crossed in {matrix.seconds:.0f} s on {count(matrix.workers, 'process', 'processes')}; "
        f"{matrix.estimated:.0f} s were estimated"
    )
    if matrix.untried:
        yield f"{matrix.untried} pairs were not tried: the budget of {matrix.budget:g} s was spent"


def _account(matrix: Matrix) -> list[str]:
    return [
        "All defects under the falsifiers that "
        + ("can run here" if matrix.full else "take tens of milliseconds")
        + ", each under its quickest case, declared or not. *Passed* off the diagonal is no fault: "
        "a falsifier answers for the defects that it declares. *Unreached*: the defect was not in "
        "force there.",
        "",
        *(f"- {escape(line)}" for line in _plain_account(matrix)),
    ]


def _findings(judged: Judged) -> list[str]:
    lines = [f"- **{finding.kind}** {escape(finding.text)}" for finding in judged.findings]
    if not lines:
        lines = ["Every defect is caught by its contracts, and every falsifier catches a defect."]
    for what, names in (("defects", judged.open_defects), ("falsifiers", judged.open_tests)):
        if names:
            listed = [f"- {escape(name)}" for name in names]
            lines += ["", *details(f"not shown on this machine: {len(names)} {what}", listed)]
    return lines


def _latency(matrix: Matrix) -> Iterator[list[str]]:
    kills = [cross for cross in matrix.crosses if cross.outcome == "killed"]
    first: dict[str, Cross] = {}
    for cross in kills:
        known = first.get(cross.defect)
        if known is None or _steps(cross) < _steps(known):
            first[cross.defect] = cross
    least = -1
    for words, most in _SOON.items():
        yield [words, *_within(kills, first, least, most)]
        least = most
    yield ["later", *_within(kills, first, least, 10**9)]
    yield ["not counted: another process", *_within(kills, first, 10**9, 10**10)]


def _within(kills: Sequence[Cross], first: dict[str, Cross], least: int, most: int) -> list[str]:
    found = [
        sum(least < _steps(cross) <= most for cross in some) for some in (kills, first.values())
    ]
    return [str(amount) for amount in found]


def _steps(cross: Cross) -> int:
    return 10**10 if cross.steps is None else cross.steps


def _by_defect(run: Run, matrix: Matrix) -> Iterator[str]:
    caught, belongs = killers(run), owners(run)
    contract_of = {test.id: contract.id for contract in run.contracts for test in contract.tests}
    declared = {
        (test.id, defect)
        for c in run.contracts
        for test in c.tests
        for defect in test.counter_examples
    }
    by_defect: dict[str, list[Cross]] = {}
    for cross in matrix.crosses:
        by_defect.setdefault(cross.defect, []).append(cross)
    cells = []
    for defect, contracts in belongs.items():
        tried = by_defect.get(defect, [])
        counts = Counter(cross.outcome for cross in tried)
        kills = [cross for cross in tried if cross.outcome == "killed"]
        soonest = min(kills, key=lambda c: (_steps(c), c.seconds), default=None)
        beyond = sorted(t for t in caught.get(defect, ()) if (t, defect) not in declared)
        foreign = {contract_of[test] for test in beyond} - set(contracts)
        cells.append(
            [
                escape(defect),
                str(len(caught.get(defect, ()))),
                str(len(beyond)),
                str(len(foreign)),
                str(counts["passed"]),
                "–" if soonest is None or soonest.steps is None else str(soonest.steps),
                "–" if soonest is None else number(float(soonest.seconds)),
            ]
        )
    head = ("defect", "caught by", "undeclared", "other contracts", "passed", "steps", "s")
    yield from table(head, cells, "lrrrrrr")


def _by_column(matrix: Matrix) -> Iterator[str]:
    counts: dict[str, Counter[str]] = {key: Counter() for key in matrix.columns}
    for cross in matrix.crosses:
        counts[cross.column][cross.outcome] += 1
    cells = (
        [code(column.test), *(str(counts[key][o]) for o in OUTCOMES), f"{column.seconds * 1e3:.1f}"]
        for key, column in matrix.columns.items()
    )
    heads = [name.replace("_", " ") for name in OUTCOMES]
    yield from table(("falsifier", *heads, "clean ms"), cells, "lrrrrrr")


def _broken(matrix: Matrix) -> Iterator[str]:
    """Grouped by what was said: one defect breaks many falsifiers in the same way."""
    groups: dict[tuple[str, str], list[str]] = {}
    for cross in matrix.crosses:
        if cross.outcome == "broken":
            about = (cross.defect, clip(cross.detail, _DETAIL))
            groups.setdefault(about, []).append(matrix.columns[cross.column].test)
    cells = (
        [escape(defect), str(len(tests)), escape(said)] for (defect, said), tests in groups.items()
    )
    yield from table(("defect", "falsifiers", "what happened"), cells, "lrl")
