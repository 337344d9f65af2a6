"""Everything that a run holds of one entry."""

from __future__ import annotations

from collections.abc import Iterator

from aprverify.evidence.localized import first_fault
from aprverify.evidence.markdown import clip, count
from aprverify.evidence.provenance import where
from aprverify.evidence.records import Row, TestRecord
from aprverify.evidence.reproduction import command
from aprverify.views.html.comparisons import every_comparison
from aprverify.views.html.markup import Markup, element, join
from aprverify.views.html.outline import Outline
from aprverify.views.html.plots import plots
from aprverify.views.html.values import exact, facts

# Words of a contract are repeated in each of its entries, and in full where it is described.
_REPEATED = 400
_AT_MOST = 40
_CANARY = {
    "same": "a clean measurement after its removal was the same as before",
    "different": "a clean measurement after its removal DIFFERED: it was still in force",
    "not_measured": "whether it outlived its removal was not measured",
}


def entry(outline: Outline, row: Row) -> Markup:
    """What the entry claims, what was found, why that is its outcome, and how to run it again."""
    test = outline.tests[row.test]
    parts = [element("p", clip(test.title, _REPEATED), class_="title")]
    if row.comparisons:
        parts.append(every_comparison(row))
    parts += plots(row)
    parts.append(facts([*_verdict(row, test), *_origin(outline, row)]))
    return element("div", parts, class_="entry")


def _verdict(row: Row, test: TestRecord) -> Iterator[tuple[str, str | list[str]]]:
    yield "Why", _why(row)
    compared = {comparison.claim for comparison in row.comparisons}
    missing = [name for name in test.claims if name not in compared]
    yield (
        "Not compared",
        _some([_claim(name, test.claims[name]) for name in missing[:_AT_MOST]], len(missing)),
    )
    if row.reason is not None and row.reason.remedy:
        yield "To let it run", element("code", row.reason.remedy)
    if row.localization is not None:
        yield "First at fault", first_fault(row.localization)
    if row.outcome in ("falsified", "survived", "broken", "inconclusive"):
        yield "Look at", clip(test.if_fails, _REPEATED)
    if row.defect is not None:
        yield "Planted defect", join((element("code", row.defect), _plant(row)))
    yield "Measured", [_value(name, value) for name, value in row.measures.items()]


def _some(shown: list[Markup], of: int) -> list[str]:
    return [*shown, f"and {of - len(shown)} more"] if of > len(shown) else [*shown]


def _claim(name: str, expression: str) -> Markup:
    shown = element("code", clip(expression, _REPEATED))
    return join((clip(name, _REPEATED), " ", shown))


def _value(name: str, value: object) -> Markup:
    return element("span", name, " = ", element("code", exact(value)))


def _why(row: Row) -> str:
    failed = [comparison for comparison in row.comparisons if not comparison.holds]
    compared = count(len(row.comparisons), "comparison")
    match row.outcome:
        case "held":
            return f"Nothing failed: {compared} made, and each holds."
        case "falsified":
            return f"{len(failed)} of {compared} failed: {_names(row)}."
        case "caught":
            return f"With the defect planted, {len(failed)} of {compared} failed: it was noticed."
        case "survived":
            return (
                f"The defect was in force, and yet nothing failed in {compared}: this test cannot "
                "see it, so its pass says nothing about it."
            )
    reason = row.reason
    return f"{reason.kind}: {reason.detail}" if reason is not None else ""


def _names(row: Row) -> str:
    return ", ".join(dict.fromkeys(c.claim for c in row.comparisons if not c.holds))


def _plant(row: Row) -> str:
    plant = row.plant
    if plant is None:
        return ": not planted"
    reached = count(plant.reached, "time")
    return (
        f": its code ran {reached} and changed {count(plant.changed, 'output')}; "
        f"{_CANARY[plant.canary]}"
    )


def _origin(outline: Outline, row: Row) -> Iterator[tuple[str, str | list[str]]]:
    yield "Reproduce", element("code", command(outline.run, row), class_="command")
    yield "Entry", outline.link("entry", row.key, row.key)
    yield "Contract", outline.link("contract", row.contract, clip(row.contract, _REPEATED))
    yield (
        "Test",
        join((outline.link("test", row.test, row.test), ", ", element("code", row.falsifier))),
    )
    gates = list(outline.gates_of.get(row.test, {}).items())
    yield "Gates", _some([_linked(outline, "gate", *gate) for gate in gates[:_AT_MOST]], len(gates))
    names = outline.tests[row.test].invariants
    shown = [_linked(outline, "invariant", name, name) for name in names[:_AT_MOST]]
    yield "Invariants", _some(shown, len(names))
    yield "Case", [_value(name, value) for name, value in row.case.items()]
    yield "Scale", row.scale
    environment = outline.environments[row.environment]
    machine = clip(where(environment), _REPEATED)
    yield (
        "Environment",
        join((outline.link("environment", row.environment, row.environment), ": ", machine)),
    )
    yield (
        "Artifacts",
        [_artifact(*item) for item in sorted(row.assets.items())]
        or "none but the repository's files",
    )
    yield "Source", element("code", row.source_id)
    yield "Ran", f"{row.started}, {exact(row.seconds)} s, worker {row.worker}"


def _linked(outline: Outline, kind: str, place: str | int, name: str) -> Markup:
    return outline.link(kind, place, clip(name, _REPEATED))


def _artifact(name: str, sha256: str) -> Markup:
    return join((name, " ", element("code", sha256)))
