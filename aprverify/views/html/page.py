"""A run as one HTML file to open, send or print: `render` is all that others need.

The file holds everything: no script is needed to read it, no network is used, and a policy in its
head lets a browser run nothing but the one script and the one style sheet of this package.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import resources

from aprverify.evidence import verdict
from aprverify.evidence.markdown import clip, count
from aprverify.evidence.provenance import where
from aprverify.evidence.records import Run
from aprverify.evidence.sentences import not_shown, verdict_sentence
from aprverify.evidence.status import GateStatus, Status, gate_statuses
from aprverify.views.html import matrix
from aprverify.views.html.claims import claims
from aprverify.views.html.entries import WORDS, WORST_FIRST, entries, outcome
from aprverify.views.html.gates import gates, status_badge
from aprverify.views.html.markup import Markup, asset, element, join
from aprverify.views.html.outline import Outline
from aprverify.views.html.plots import FRAGMENT, TITLE, recorded
from aprverify.views.html.provenance import environments, provenance
from aprverify.views.pictures.curves import run_curves, run_errors

_CHAPTERS = {
    "gates": "Gates",
    FRAGMENT: TITLE,
    matrix.FRAGMENT: matrix.TITLE,
    "entries": "Entries",
    "claims": "What is claimed",
    "environments": "Environments",
    "provenance": "Provenance",
}


def render(run: Run) -> str:
    """The page of a run, a pure function of it: the same bytes wherever and whenever it is made."""
    outline = Outline(run)
    statuses = gate_statuses(run.contracts, outline.rows)
    body = element(
        "body",
        element(
            "main",
            element("p", element("strong", "Not shown: "), not_shown(run), class_="not-shown"),
            element("a", "Skip to the entries", href="#entries", class_="skip"),
            _summary(outline, statuses),
            gates(outline, statuses),
            recorded(run) or "",
            matrix.crossed(run) or "",
            entries(outline),
            claims(outline),
            environments(outline),
            provenance(outline),
        ),
        asset("script", _text("page.js")),
    )
    page = element("html", _head(run), "\n", body, lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


@cache
def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _head(run: Run) -> Markup:
    title = f"{clip(run.header.subject, 80)}, {run.header.started[:10]}: {_word(run)}"
    policy = (
        f"default-src 'none'; script-src {_hash('page.js')}; style-src {_hash('page.css')}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        # Without one, a browser asks the server that the page came from.
        element("link", rel="icon", href="data:,"),
        asset("style", _text("page.css")),
    )


def _hash(name: str) -> str:
    digest = hashlib.sha256(_text(name).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _word(run: Run) -> str:
    sentence = verdict_sentence(run)
    return sentence.partition(".")[0]


def _summary(outline: Outline, statuses: Sequence[GateStatus]) -> Markup:
    run = outline.run
    good = verdict.exit_code(run, run.header.require) == verdict.OK
    # Green only where nothing is missing: what did not run is never green.
    missing = any(row.outcome == "not_run" and not row.inapplicable for row in run.rows)
    colour = "bad" if not good else ("open" if missing else "good")
    return element(
        "header",
        element("h1", run.header.subject, ", ", run.header.started[:10]),
        element("p", verdict_sentence(run), class_=f"verdict {colour}"),
        element("dl", _tiles(outline, statuses), class_="tiles"),
        _bar(outline),
        element(
            "nav",
            [element("a", title, href=f"#{name}") for name, title in _chapters(run)],
            aria_label="Chapters",
        ),
        id="summary",
    )


def _chapters(run: Run) -> list[tuple[str, str]]:
    absent = set() if run_curves(run) or run_errors(run) else {FRAGMENT}
    absent |= set() if run.matrix is not None else {matrix.FRAGMENT}
    return [(name, title) for name, title in _CHAPTERS.items() if name not in absent]


def _tiles(outline: Outline, statuses: Sequence[GateStatus]) -> list[Markup]:
    run = outline.run
    found = Counter(status.status for status in statuses)
    blocking = [status for status in statuses if status.ship_blocking]
    ships = sum(status.ships for status in blocking)
    gates_found = [
        join((str(found[status]), " ", status_badge(status.name)))
        for status in Status
        if found[status]
    ]
    machines = [clip(where(environment), 80) for environment in outline.environments.values()]
    commit = run.header.source.commit
    return [
        _tile("Gates", gates_found),
        _tile("Blocking gates that may ship", [f"{ships} of {len(blocking)}"]),
        _tile("Where", machines),
        _tile("Commit", [element("code", clip(commit, 12)) if commit else "unknown (no git)"]),
        _tile("Contracts", [str(len(run.contracts))]),
    ]


def _tile(name: str, values: Sequence[str]) -> Markup:
    shown = [element("div", value) for value in values]
    return element("div", element("dt", name), element("dd", shown or "none"))


def _bar(outline: Outline) -> Markup:
    """The outcomes as one bar, and in words below it: the words are links that filter."""
    amounts = Counter(outcome(row) for row in outline.rows)
    total = max(1, len(outline.rows))
    parts, legend, left = [], [], 0
    for name in (name for name in WORST_FIRST if amounts[name]):
        start, width = 1000 * left / total, 1000 * amounts[name] / total
        left += amounts[name]
        parts.append(
            element("rect", x=f"{start:.2f}", width=f"{width:.2f}", height=10, class_=name)
        )
        said = f"{amounts[name]} {WORDS.get(name, name)}"
        link = element("a", said, href="#entries", data_outcome=name, class_=name)
        legend.append(element("li", link))
    picture = element(
        "svg", parts, viewBox="0 0 1000 10", preserveAspectRatio="none", aria_hidden="true"
    )
    words = element("ul", legend, aria_label=count(len(outline.rows), "entry", "entries"))
    return element("div", picture, words, class_="bar")
