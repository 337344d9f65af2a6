"""The page in a real browser: what a reviewer does with it, with and without scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aprverify.views.html.entries import COLUMNS
from aprverify.views.html.page import render

from ..views.runs import committed
from . import runs
from .browser import Browser, program

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium is installed here")

ROWS = "[...document.querySelectorAll('.entries > tbody')]"
SHOWN = f"{ROWS}.filter(r => r.checkVisibility())"
SEARCH = "document.getElementById('search')"
FOUND = "document.getElementById('found').textContent"
RESET = "document.querySelector('button[type=reset]')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this file."""
    with Browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of each run, as a file."""
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "mixed": runs.mixed(folder / "mixed"),
        "hostile": runs.hostile(folder / "hostile"),
        "large": runs.large(folder / "large", 2000),
        **{run.path.parent.name: run for run in committed()},
    }
    for name, run in made.items():
        (folder / f"{name}.html").write_text(render(run), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture
def mixed(browser: Browser, pages: dict[str, Path]) -> Browser:
    """The browser with the run of every outcome open."""
    browser.look()
    browser.open(pages["mixed"])
    return browser


def line(key: str) -> str:
    """The line of an entry."""
    return f"document.getElementById({json.dumps(key)})"


def detail(key: str) -> str:
    """Whether all that was recorded of an entry is to be seen."""
    return f"{line(key)}.rows[1].checkVisibility()"


def test_a_page_asks_for_nothing_and_complains_of_nothing(
    browser: Browser, pages: dict[str, Path]
) -> None:
    """No request but the file itself, nothing on the console, in any state and theme."""
    for name, page in pages.items():
        for dark in (False, True) if name != "large" else ():
            browser.look(dark=dark)
            browser.open(page, "#entries")
            browser.ask("document.querySelector('button[name=open]').click()")
            browser.ask("document.querySelector('.entries > thead button').click()")
            assert browser.ask(SHOWN)
            assert browser.requests == [f"{page.as_uri()}"]
            assert browser.complaints == []


def test_nothing_of_a_hostile_run_is_carried_out(browser: Browser, pages: dict[str, Path]) -> None:
    """Not when it is opened, hovered, sorted, searched or expanded."""
    browser.look()
    browser.open(pages["hostile"])
    browser.ask("document.querySelector('button[name=open]').click()")
    for column in range(len(COLUMNS)):
        browser.ask(f"document.querySelectorAll('.entries > thead button')[{column}].click()")
    browser.ask("document.querySelector('a[data-find]').click()")
    browser.ask(
        "document.querySelectorAll('*').forEach(e => { e.focus?.();"
        " e.dispatchEvent(new MouseEvent('mouseover', {bubbles: true})); })"
    )
    assert browser.ask("globalThis.pwned") is None
    assert browser.ask("document.scripts.length") == 1
    assert browser.complaints == []
    assert browser.ask(f"{SHOWN}.length") == 2


def test_a_policy_stops_what_escaping_would_miss(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    """The second lock: a script, a handler, a style and a picture put into the file stay dead."""
    attack = (
        "<script>globalThis.pwned = 1</script><img src=x onerror='globalThis.pwned = 1'>"
        "<style>body { display: none }</style><img src='http://127.0.0.1:9/x'>"
    )
    page = tmp_path / "attacked.html"
    page.write_text(pages["mixed"].read_text("utf-8").replace("<main>", f"<main>{attack}"), "utf-8")
    browser.look()
    browser.open(page)
    assert browser.ask("globalThis.pwned") is None
    assert browser.ask("getComputedStyle(document.body).display") == "block"
    assert len(browser.complaints) >= 4


@pytest.mark.parametrize("column", range(len(COLUMNS)), ids=COLUMNS)
def test_every_column_sorts_in_both_directions(mixed: Browser, column: int) -> None:
    """Numbers as numbers; what has no value comes last in both; the heading tells which."""
    orders = []
    for direction in ("ascending", "descending"):
        mixed.click(f"document.querySelectorAll('.entries > thead button')[{column}]")
        heads = mixed.ask(
            "[...document.querySelectorAll('.entries > thead th')].map(h => h.ariaSort)"
        )
        assert heads == [direction if i == column else None for i in range(len(COLUMNS))]
        assert mixed.ask(FOUND) == f"8 of 8 entries shown, by {COLUMNS[column]}, {direction}"
        cells = mixed.ask(
            f"{ROWS}.map(r => r.rows[0].cells[{column}])"
            ".map(c => [c.dataset.v ?? null, c.textContent])"
        )
        orders.append([_place(*cell) for cell in cells])
    up, down = orders
    assert up == sorted(up)
    ranks = [place[0] for place in down]
    assert ranks == sorted(ranks)
    for rank in set(ranks):
        values = [place for place in down if place[0] == rank]
        assert values == sorted(values, reverse=True)


def _place(value: str | None, text: str) -> tuple[int, float, str]:
    if value is not None:
        return 0, float(value), ""
    return (2, 0.0, "") if text == "–" else (1, 0.0, text.lower())


def test_margins_sort_as_numbers(mixed: Browser) -> None:
    """What failed worst comes first, and what has no margin last."""
    mixed.click("document.querySelectorAll('.entries > thead button')[7]")
    told = mixed.ask(f"{ROWS}.map(r => r.rows[0].cells[7].textContent)")
    assert told == ["-27", "-2", "+0.012", "+0.5", "–", "–", "–", "–"]


def test_plan_order_comes_back(mixed: Browser) -> None:
    """With all entries, as the page opened."""
    before = mixed.ask(f"{ROWS}.map(r => r.id)")
    mixed.click("document.querySelectorAll('.entries > thead button')[8]")
    mixed.ask("document.getElementById('outcome').focus()")
    mixed.click(SEARCH)
    mixed.type("GATE-B")
    assert mixed.ask(f"{SHOWN}.length") == 1
    mixed.click(RESET)
    mixed.until(lambda: mixed.ask(FOUND) == "8 of 8 entries shown")
    assert mixed.ask(f"{SHOWN}.map(r => r.id)") == before
    assert mixed.ask("document.querySelector('[aria-sort]')") is None


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("outcome", "falsified", 2), ("outcome", "inapplicable", 1), ("outcome", "not_run", 1),
        ("device", "cuda", 2), ("device", "cpu", 6), ("contract", "C-B", 1),
        ("search", "gate-b", 1), ("search", "inv-a", 8), ("search", "signal 11", 1),
        ("search", "drop-bias", 1), ("search", "nothing like it", 0), ("search", "lane CUDA", 1),
    ],
)  # fmt: skip
def test_a_filter_shows_what_it_names(mixed: Browser, name: str, value: str, shown: int) -> None:
    """And says how many are shown, to those who cannot see it as well."""
    if name == "search":
        mixed.click(SEARCH)
        mixed.type(value)
    else:
        mixed.ask(f"(s => {{ s.value = {json.dumps(value)}; s.dispatchEvent(new Event('input',"
                  f" {{bubbles: true}})); }})(document.getElementById('{name}'))")  # fmt: skip
    assert mixed.ask(f"{SHOWN}.length") == shown
    assert mixed.ask(FOUND) == f"{shown} of 8 entries shown"
    assert mixed.ask("document.getElementById('found').role") == "status"


def test_filters_add_up(mixed: Browser) -> None:
    """All of them at once."""
    mixed.ask("document.getElementById('device').value = 'cpu'")
    mixed.ask("document.getElementById('outcome').value = 'falsified'")
    mixed.click(SEARCH)
    mixed.type("TEST")
    assert mixed.ask(f"{SHOWN}.map(r => r.id)") == ["TEST-B[cpu-bf16]"]


def test_a_gate_leads_to_its_entries(mixed: Browser) -> None:
    """So does an outcome in the summary."""
    mixed.click("document.querySelector('#GATE-B a[data-find]')")
    assert mixed.ask(f"{SHOWN}.map(r => r.id)") == ["TEST-B[cpu-bf16]"]
    mixed.click("document.querySelector('.bar a.broken')")
    assert mixed.ask(f"{SHOWN}.map(r => r.id)") == ["TEST-A[cpu-bf16]"]
    assert mixed.ask("location.hash") == "#entries"


def test_a_line_opens_by_keyboard_and_by_click(mixed: Browser) -> None:
    """And closes again; a screen reader is told which it is."""
    key = "TEST-A[cpu-f32]"
    assert not mixed.ask(detail(key))
    mixed.ask(f"{line(key)}.querySelector('summary').focus()")
    for opened in (True, False):
        mixed.press("Enter")
        mixed.until(lambda opened=opened: mixed.ask(detail(key)) is opened)  # type: ignore[misc]
    mixed.click(f"{line(key)}.rows[0].cells[5]")
    assert mixed.ask(detail(key))
    node = _accessible(mixed, f"{line(key)}.querySelector('summary')")
    assert node["role"]["value"] == "DisclosureTriangle"
    assert {"name": "expanded", "value": True} in [
        {"name": p["name"], "value": p["value"]["value"]} for p in node["properties"]
    ]
    mixed.click(f"{line(key)}.rows[0].cells[5]")
    assert not mixed.ask(detail(key))


def _accessible(browser: Browser, expression: str) -> dict[str, Any]:
    found = browser.call("Runtime.evaluate", expression=expression)["result"]["objectId"]
    tree = browser.call("Accessibility.getPartialAXTree", objectId=found, fetchRelatives=False)
    node: dict[str, Any] = tree["nodes"][0]
    return node


def test_everything_is_reached_with_the_tab_key(mixed: Browser) -> None:
    """Links, filters, headings, lines, in the order of the page; the first skips to the lines."""
    reached = []
    for _ in range(60):
        mixed.press("Tab")
        reached.append(
            mixed.ask("(e => `${e.localName} ${e.id || e.textContent}`)(document.activeElement)")
        )
    assert reached[0] == "a Skip to the entries"
    expected = ["a Gates", "a 7 entries", "input search", "select outcome", "select device",
                "select contract", "button Show all, in plan order",
                *(f"button {name}" for name in COLUMNS), "summary TEST-A"]  # fmt: skip
    places = [reached.index(name) for name in expected]
    assert places == sorted(places)


def test_open_and_close_all(mixed: Browser) -> None:
    """Of what is shown."""
    mixed.click(SEARCH)
    mixed.type("TEST-A")
    opened = f"{ROWS}.filter(r => r.querySelector('details').open).length"
    mixed.click("document.querySelector('button[name=close]')")
    assert mixed.ask(opened) == 0
    mixed.click("document.querySelector('button[name=open]')")
    assert mixed.ask(opened) == mixed.ask(f"{SHOWN}.length") == 7


def test_a_link_to_an_entry_opens_it(browser: Browser, pages: dict[str, Path]) -> None:
    """From outside, and from inside though a filter hides it; the focus goes with it."""
    key = "TEST-A[cpu-f32]!drop-bias"
    browser.look()
    browser.open(pages["mixed"], f"#{key}")
    assert browser.ask(detail(key))
    assert browser.ask(f"document.activeElement === {line(key)}.querySelector('summary')")
    assert 0 <= browser.ask(f"{line(key)}.getBoundingClientRect().top") < 200
    browser.click(SEARCH)
    browser.type("GATE-B")
    browser.ask("location.hash = '#TEST-A[cpu-f32]'")
    browser.until(lambda: browser.ask(detail("TEST-A[cpu-f32]")) is True)
    # As a browser that percent-encodes what it copies out of its address bar.
    browser.open(pages["mixed"], "#TEST-A%5Bcpu-f32%5D")
    assert browser.ask(detail("TEST-A[cpu-f32]"))
    browser.open(pages["mixed"], "#%E0%A4%A")
    assert browser.complaints == []


@pytest.mark.parametrize("name", ["GATE-A", "TEST-B", "INV-B", "C-B", "provenance"])
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_a_link_to_anything_shows_it(
    browser: Browser, pages: dict[str, Path], name: str, scripts: bool
) -> None:
    """A gate, a test and an invariant in what is folded away, a contract, a part of the page."""
    browser.look()
    browser.open(pages["mixed"], f"#{name}", scripts=scripts)
    target = f"document.getElementById({json.dumps(name)})"
    assert browser.ask(f"{target}.checkVisibility()")
    assert 0 <= browser.ask(f"{target}.getBoundingClientRect().top") < 900


def test_a_link_unfolds_its_way_in_any_browser(mixed: Browser) -> None:
    """Also in one that does not do so by itself: here the browser is not told of the fragment."""
    seen = "document.getElementById('INV-B').checkVisibility()"
    assert not mixed.ask(seen)
    mixed.ask("history.replaceState(null, '', '#INV-B')")
    mixed.ask("dispatchEvent(new HashChangeEvent('hashchange'))")
    assert mixed.ask(seen)


def test_without_scripts_everything_is_there(browser: Browser, pages: dict[str, Path]) -> None:
    """Lines open, links lead, and nothing is shown that would not work."""
    browser.look()
    browser.open(pages["mixed"], "#TEST-A[cpu-f32]!drop-bias", scripts=False)
    assert browser.ask(f"{ROWS}.length") == 8
    assert browser.ask(detail("TEST-A[cpu-f32]!drop-bias"))
    assert not browser.ask("document.getElementById('filters').checkVisibility()")
    assert browser.ask("document.querySelectorAll('thead button').length") == 0
    assert not browser.ask(detail("TEST-A[cpu-f32]"))
    browser.click(f"{line('TEST-A[cpu-f32]')}.querySelector('summary')")
    assert browser.ask(detail("TEST-A[cpu-f32]"))


def test_what_is_printed_is_what_is_open(mixed: Browser) -> None:
    """Failures with all that is known of them, and no filters; nothing runs off the paper."""
    mixed.look(width=760, media="print")
    for key in ("TEST-A[cuda-bf16]", "TEST-A[cpu-f32]!eps", "TEST-A[cpu-bf16]"):
        assert mixed.ask(detail(key))
    assert not mixed.ask(detail("TEST-A[cpu-f32]"))
    assert not mixed.ask("document.getElementById('filters').checkVisibility()")
    assert mixed.ask("document.documentElement.scrollWidth <= innerWidth")
    printed = mixed.call("Page.printToPDF")
    assert len(printed["data"]) > 10_000
    mixed.look()


@pytest.mark.parametrize("width", [320, 400, 800, 1280])
def test_nothing_runs_off_the_side(browser: Browser, pages: dict[str, Path], width: int) -> None:
    """Whatever the width, and whatever the run calls its things."""
    for name, page in pages.items():
        if name == "large":
            continue
        browser.look(width=width)
        browser.open(page)
        browser.ask("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert browser.ask("document.documentElement.scrollWidth") <= width, name


def test_headings_and_controls_have_names(mixed: Browser) -> None:
    """No level is left out, each field has its label, and each table its caption."""
    levels = mixed.ask("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.localName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    for name in ("search", "outcome", "device", "contract"):
        node = _accessible(mixed, f"document.getElementById('{name}')")
        assert node["name"]["value"].strip().lower() in (name, "text")
    captions = mixed.ask("[...document.querySelectorAll('table')].map(t => t.caption?.textContent)")
    assert captions[:2] == ["Gates", "Entries"] and set(captions[2:]) == {"Comparisons"}


def test_two_thousand_rows_open_in_two_seconds(browser: Browser, pages: dict[str, Path]) -> None:
    """Until it is loaded and its script has run; the best of three, since tests share cores."""
    browser.look()
    taken = []
    for _ in range(3):
        browser.open(pages["large"])
        assert browser.ask(FOUND) == "2000 entries"
        taken.append(browser.ask("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert min(taken) < 2000


def test_two_thousand_rows_sort_and_filter_at_once(
    browser: Browser, pages: dict[str, Path]
) -> None:
    """Within a second, layout included; the best of three."""
    browser.look()
    browser.open(pages["large"])
    taken = [
        browser.ask(
            "(() => { const start = performance.now();"
            " document.querySelectorAll('.entries > thead button')[7].click();"
            f" {SEARCH}.value = 'seed=19{i}';"
            f" {SEARCH}.dispatchEvent(new Event('input', {{bubbles: true}}));"
            " document.body.offsetHeight; return performance.now() - start; })()"
        )
        for i in range(3)
    ]
    assert browser.ask(f"{SHOWN}.length") == 11
    assert min(taken) < 1000
