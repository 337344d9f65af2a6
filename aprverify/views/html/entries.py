"""The table of entries: a line for each row of the run, and all that the row holds below it.

A line opens without a script: its `details` element holds nothing, and the style sheet shows the
line's second half while it is open. A table keeps its rows that way, which may not be in `details`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from aprverify.evidence.markdown import clip, count, number
from aprverify.evidence.records import Row
from aprverify.views.html.comparisons import NOTHING, deciding, figures
from aprverify.views.html.entry import entry
from aprverify.views.html.markup import Markup, element, join
from aprverify.views.html.outline import Outline

COLUMNS = (
    "outcome", "entry", "planted defect", "contract", "device", "observed", "bound", "margin",
    "seconds",
)  # fmt: skip
_NAME = 160
_DEVICE = 30
WORDS = {"not_run": "not run", "inapplicable": "does not apply"}
WORST_FIRST = (
    "falsified", "survived", "broken", "inconclusive", "not_run", "inapplicable", "held", "caught",
)  # fmt: skip
_OPENED = frozenset(WORST_FIRST[:4])


def outcome(row: Row) -> str:
    """The row's outcome; a defect that cannot be planted in this subject has a word of its own."""
    return "inapplicable" if row.inapplicable else row.outcome


def badge(name: str) -> Markup:
    """An outcome as a reader sees it."""
    return element("span", WORDS.get(name, name), class_=f"badge {name}")


def entries(outline: Outline) -> Markup:
    """The section: filters, how many are shown, and the table."""
    rows = outline.rows
    return element(
        "section",
        element("h2", "Entries"),
        element(
            "p",
            "One line for each test in each case, and for each planted defect in each case. Shown "
            "is the comparison that fails, or else the one nearest to failing, with its margin in "
            "units of its tolerance: 1 is nothing of it used, 0 is at the bound, below 0 is "
            "beyond. A line opens to everything that was recorded of it.",
        ),
        _filters(rows),
        element("p", count(len(rows), "entry", "entries"), id="found", role="status"),
        element(
            "div",
            element(
                "table",
                element("caption", "Entries", class_="unseen"),
                element("colgroup", [element("col", class_=_word(name)) for name in COLUMNS]),
                element("thead", element("tr", [_head(name) for name in COLUMNS])),
                [_lines(outline, row, place) for place, row in enumerate(rows)],
                class_="entries",
            ),
            class_="wide",
        ),
        id="entries",
    )


def _head(name: str) -> Markup:
    return element("th", name, scope="col", class_=_word(name))


def _word(name: str) -> str:
    return name.rpartition(" ")[2]


def _filters(rows: Iterable[Row]) -> Markup:
    rows = list(rows)
    return element(
        "form",
        element(
            "label",
            "Text ",
            element(
                "input",
                id="search",
                name="search",
                type="search",
                placeholder="gate, invariant, test, case, reason …",
                autocomplete="off",
                spellcheck="false",
            ),
        ),
        _choice("outcome", (outcome(row) for row in rows), WORST_FIRST),
        _choice("device", (row.device for row in rows)),
        _choice("contract", (row.contract for row in rows)),
        element("button", "Show all, in plan order", type="reset"),
        element("button", "Open all shown", type="button", name="open"),
        element("button", "Close all", type="button", name="close"),
        id="filters",
        role="search",
        aria_label="Filter the entries",
        hidden=True,
    )


def _choice(name: str, values: Iterable[str], order: tuple[str, ...] = ()) -> Markup:
    amounts = Counter(values)
    names = [value for value in order if value in amounts] or sorted(amounts)
    options = [
        element("option", f"{clip(WORDS.get(value, value), 60)} ({amounts[value]})", value=value)
        for value in names
    ]
    return element(
        "label",
        f"{name.capitalize()} ",
        element("select", element("option", "all", value=""), options, id=name, name=name),
    )


def _lines(outline: Outline, row: Row, place: int) -> Markup:
    happened = outcome(row)
    opened = happened in _OPENED
    cells = [
        element("td", badge(happened), data_v=WORST_FIRST.index(happened)),
        element("th", _name(row, opened), scope="row", data_v=place),
        NOTHING if row.defect is None else element("td", clip(row.defect, _NAME)),
        element("td", clip(row.contract, _NAME)),
        element("td", clip(row.device, _DEVICE)),
        *figures(deciding(row)),
        element("td", number(float(row.seconds)), data_v=float(row.seconds)),
    ]
    more = element("td", entry(outline, row), colspan=len(COLUMNS))
    return element(
        "tbody",
        element("tr", cells),
        element("tr", more, class_="more"),
        id=outline.fragment("entry", row.key),
        data_outcome=happened,
        data_device=row.device,
        data_contract=row.contract,
    )


def _name(row: Row, opened: bool) -> Markup:
    # Room to break a long line in.
    case = clip(row.case_id.replace(",", ", "), _NAME)
    parts = [
        element("details", element("summary", clip(row.test, _NAME)), open=opened),
        element("div", case, class_="case"),
    ]
    if row.reason is not None:
        parts.append(
            element("div", clip(row.reason.detail or row.reason.kind, _NAME), class_="why")
        )
    return join(parts)
