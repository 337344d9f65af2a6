"""The table of gates: what is required, whether it is met, and what keeps it from being met."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from aprverify.evidence.closest import deciding
from aprverify.evidence.markdown import clip, count
from aprverify.evidence.records import ContractRecord, Row
from aprverify.evidence.status import GateStatus
from aprverify.views.html.comparisons import figures
from aprverify.views.html.markup import Markup, element, join
from aprverify.views.html.outline import Outline

_COLUMNS = ("gate", "status", "observed", "bound", "margin", "teeth", "entries")
_AT_ONCE = 3


def gates(outline: Outline, statuses: Sequence[GateStatus]) -> Markup:
    """Every gate of every contract, whether or not the run is about it."""
    rows_of: dict[int, list[Row]] = defaultdict(list)
    for row in outline.rows:
        for position in outline.gates_of.get(row.test, ()):
            rows_of[position].append(row)
    of_contract: dict[str, list[Markup]] = defaultdict(list)
    for position, status in enumerate(statuses):
        of_contract[status.contract].append(_gate(outline, position, status, rows_of[position]))
    bodies = [
        element("tbody", _contract(outline, contract), of_contract[contract.id])
        for contract in outline.run.contracts
    ]
    return element(
        "section",
        element("h2", "Gates"),
        element(
            "p",
            "Shown is the comparison that fails, or else the one nearest to failing, with its "
            "margin in units of its tolerance. Teeth are the planted defects caught of those "
            "declared; a gate that blocks shipping must be DISCHARGED, or PARTIAL_ALGORITHM_LEVEL "
            "where its contract allows that.",
        ),
        element(
            "div",
            element(
                "table",
                element("caption", "Gates", class_="unseen"),
                element("thead", element("tr", [_head(name) for name in _COLUMNS])),
                bodies,
                class_="gates",
            ),
            class_="wide",
        ),
        id="gates",
    )


def _contract(outline: Outline, contract: ContractRecord) -> Markup:
    name = outline.link("contract", contract.id, contract.id)
    about = element("th", name, ": ", contract.title, colspan=len(_COLUMNS), scope="rowgroup")
    return element("tr", about, class_="contract")


def _head(name: str) -> Markup:
    return element("th", name, scope="col", class_=name)


def status_badge(name: str) -> Markup:
    """A status as the contracts spell it, with places to break it in a narrow column."""
    spelled = join(name.split("_"), Markup("_<wbr>"))
    return element("span", spelled, class_=f"badge {name.lower()}")


def _gate(outline: Outline, position: int, status: GateStatus, rows: Sequence[Row]) -> Markup:
    near = deciding(rows)
    fragment = None if near is None else outline.fragment("entry", near.row.key)
    teeth = f"{status.teeth_caught}/{status.teeth_declared}"
    found: Markup | str = "none"
    if rows:
        said = count(len(rows), "entry", "entries")
        found = element("a", said, href="#entries", data_find=status.gate)
    return element(
        "tr",
        element("th", _name(status), scope="row"),
        element("td", status_badge(status.status.name)),
        *figures(near, fragment),
        element("td", teeth),
        element("td", found),
        id=outline.fragment("gate", position),
    )


def _name(status: GateStatus) -> Markup:
    parts: list[str] = [element("span", status.gate, class_="id")]
    if status.ship_blocking:
        parts += [" ", element("span", "blocks shipping", class_="blocks")]
    if status.about == "model":
        parts += [" ", element("span", "about the model", class_="blocks")]
    parts.append(element("div", status.title, class_="case"))
    shown, rest = status.why[:_AT_ONCE], status.why[_AT_ONCE:]
    parts += (element("div", clip(why, 600), class_="why") for why in shown)
    if rest:
        more = element("summary", f"{len(rest)} more")
        parts.append(element("details", more, _reasons(rest)))
    return join(parts)


def _reasons(reasons: Iterable[str]) -> Markup:
    return element("ul", [element("li", clip(why, 600)) for why in reasons])
