"""A run as JUnit XML: a suite a contract, a test case an entry.

The statuses of a run are finer than JUnit's, so every case, skipped ones and errors too, carries
its outcome, contract, gates and invariants as properties. held and caught pass; falsified and
survived are failures; broken and inconclusive are errors; not_run is skipped, with its reason.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from aprverify.evidence.order import in_plan_order
from aprverify.evidence.records import ContractRecord, Row, Run
from aprverify.evidence.sentences import not_shown, verdict_sentence
from aprverify.views.entries import ERRORS, FAILED, Identity, identities, what_happened
from aprverify.views.xml_text import xml_text


def render_junit(run: Run) -> str:
    """The XML document, one entry a test case, in the order of the contracts."""
    run = in_plan_order(run)
    known = identities(run)
    root = _element("testsuites", {"name": f"aprverify {run.header.subject}", **_counts(run.rows)})
    for contract in run.contracts:
        rows = [row for row in run.rows if row.contract == contract.id]
        if rows:
            root.append(_suite(run, contract, rows, known))
    if not len(root):
        root.append(_element("testsuite", {"name": "nothing ran", **_counts(())}))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(
    run: Run, contract: ContractRecord, rows: Sequence[Row], known: Mapping[str, Identity]
) -> ET.Element:
    started = run.header.started[:19]
    suite = _element("testsuite", {"name": contract.id, **_counts(rows), "timestamp": started})
    suite.append(_properties(_provenance(run, contract)))
    suite.extend(_case(row, known[row.test]) for row in rows)
    return suite


def _counts(rows: Sequence[Row]) -> dict[str, str]:
    seen = Counter(row.outcome for row in rows)
    return {
        "tests": str(len(rows)),
        "failures": str(sum(seen[outcome] for outcome in FAILED)),
        "errors": str(sum(seen[outcome] for outcome in ERRORS)),
        "skipped": str(seen["not_run"]),
        "time": _seconds(sum(row.seconds for row in sorted(rows, key=lambda row: row.key))),
    }


def _provenance(run: Run, contract: ContractRecord) -> Iterator[tuple[str, str]]:
    yield "verdict", verdict_sentence(run)
    yield "not_shown", not_shown(run)
    yield "run_id", run.header.run_id
    yield "subject", run.header.subject
    yield "commit", run.header.source.commit or "unknown"
    yield "run_sha256", run.sha256
    yield "contract_version", contract.version
    yield "contract_path", contract.path
    yield "contract_sha256", contract.sha256
    yield "interrupted", str(run.footer.interrupted).lower()


def _case(row: Row, identity: Identity) -> ET.Element:
    name = row.case_id if row.defect is None else f"{row.case_id}!{row.defect}"
    case = _element(
        "testcase", {"classname": row.test, "name": name, "time": _seconds(row.seconds)}
    )
    case.append(_properties(_identity(row, identity)))
    told = what_happened(row, identity.test)
    if row.outcome in FAILED:
        case.append(_element("failure", {"message": told, "type": row.outcome}))
    elif row.outcome in ERRORS:
        kind = row.reason.kind if row.reason else row.outcome
        case.append(_element("error", {"message": told, "type": kind}))
    elif row.outcome == "not_run":
        case.append(_element("skipped", {"message": told}))
    return case


def _identity(row: Row, identity: Identity) -> Iterator[tuple[str, str]]:
    yield "outcome", row.outcome
    yield "kind", row.kind
    yield "contract", row.contract
    yield from (("gate", gate) for gate in identity.gates)
    yield from (("invariant", invariant) for invariant in identity.test.invariants)
    yield "falsifier", row.falsifier
    yield "key", row.key
    yield "device", row.device
    yield "scale", row.scale
    if row.defect is not None:
        yield "defect", row.defect
    yield "environment", row.environment
    yield "source_id", row.source_id


def _properties(pairs: Iterator[tuple[str, str]]) -> ET.Element:
    properties = ET.Element("properties")
    properties.extend(_element("property", {"name": n, "value": v}) for n, v in pairs)
    return properties


def _element(tag: str, attributes: Mapping[str, str]) -> ET.Element:
    return ET.Element(tag, {name: xml_text(value) for name, value in attributes.items()})


def _seconds(value: float) -> str:
    return f"{value:.3f}"
