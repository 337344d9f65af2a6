"""The page without a browser: nothing is left out, nothing is believed, the bytes never change."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from aprverify.evidence.records import Row, Run, contract_from
from aprverify.evidence.reproduction import command
from aprverify.evidence.sentences import not_shown, verdict_sentence
from aprverify.evidence.status import gate_statuses
from aprverify.views.html.markup import anchor, asset, element, escape, visible
from aprverify.views.html.page import render
from aprverify.views.html.values import exact

from ..evidence.builder import build_run, contract, row
from ..views.runs import committed
from . import runs
from .tree import Node, parse

MADE: dict[str, Callable[[Path], Run]] = {"mixed": runs.mixed, "hostile": runs.hostile}
_ELEMENTS = (
    "a body button caption circle code col colgroup dd details div dl dt form h1 h2 h3 h4 head "
    "header html img input label li line link main meta nav option p polyline rect script section "
    "select span strong style summary svg table tbody td text th thead title tr ul wbr"
)
_ATTRIBUTES = (
    "alt aria-hidden aria-label autocomplete charset class colspan content cx cy data-contract "
    "data-device data-find data-outcome data-v height hidden href http-equiv id lang name open "
    "placeholder points preserveaspectratio r rel role scope spellcheck src text-anchor type value "
    "viewbox width x x1 x2 y y1 y2"
)
_RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@pytest.fixture(params=[*MADE, *(each.header.run_id for each in committed())])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Each of several runs: with every outcome, hostile, and the committed ones."""
    if request.param in MADE:
        return MADE[request.param](tmp_path)
    return next(r for r in committed() if r.header.run_id == request.param)


def table(page: Node, name: str) -> list[Node]:
    """The bodies of a table."""
    (found,) = page.all("table", **{"class": name})
    return [node for node in found.children if node.name == "tbody"]


def facts(node: Node) -> dict[str, Node]:
    """The first list of facts below it, by name."""
    names = node.all("dl")[0].children
    return {a.text: b for a, b in zip(names[::2], names[1::2], strict=True)}


def by_key(page: Node) -> dict[str, Node]:
    """The lines of the table of entries by the key that each shows."""
    return {facts(body)["Entry"].text: body for body in table(page, "entries")}


def test_the_first_line_says_what_is_not_shown(run: Run) -> None:
    """Before the title, before any verdict."""
    (body,) = parse(render(run)).all("body")
    assert body.text.startswith(f"Not shown: {visible(not_shown(run))}")
    assert visible(verdict_sentence(run)) in body.text


def test_every_row_is_on_the_page_with_all_that_it_recorded(run: Run) -> None:
    """Comparisons with every digit, measures, reason, hashes, environment and times."""
    lines = by_key(parse(render(run)))
    assert lines.keys() == {visible(row.key) for row in run.rows}
    for recorded in run.rows:
        text = lines[visible(recorded.key)].text
        assert [wanted for wanted in _recorded(recorded) if visible(wanted) not in text] == []


def _recorded(row: Row) -> list[str]:
    texts = [
        row.contract, row.test, row.falsifier, row.scale, row.source_id, row.environment,
        row.started, row.worker, exact(row.seconds), shlex.quote(row.nodeid), row.defect or "",
    ]  # fmt: skip
    texts += [text for c in row.comparisons for text in (c.claim, c.text, c.op, c.unit)]
    texts += [text for s in row.series for text in (s.name, s.x_axis, s.y_axis)]
    texts += [f"{exact(x)}, {exact(y)}" for s in row.series for x, y in s.points if y is not None]
    texts += [exact(value) for c in row.comparisons for value in (c.observed, c.bound)]
    named = [*row.measures.items(), *row.case.items(), *row.assets.items()]
    texts += [text for name, value in named for text in (name, exact(value))]
    if row.reason is not None:
        texts += [row.reason.kind, row.reason.detail, row.reason.remedy]
    if row.plant is not None:
        texts += [f"ran {row.plant.reached} time", f"changed {row.plant.changed} output"]
    # A unit of 1 is no unit.
    return ["" if text == "1" else text for text in texts]


def test_each_line_shows_what_decided_it(tmp_path: Path) -> None:
    """Outcome, case, the comparison that failed or is nearest, its margin in tolerances."""
    lines = by_key(parse(render(runs.mixed(tmp_path))))
    cells = {key: [cell.text for cell in body.children[0].children] for key, body in lines.items()}
    assert cells["TEST-A[cpu-f32]"] == [
        "held", "TEST-Acpu-f32", "–", "C-A", "cpu", "0.9877", "<= 1 nats", "+0.012", "12.5",
    ]  # fmt: skip
    assert cells["TEST-A[cpu-f32]!drop-bias"][:3] == ["caught", "TEST-Acpu-f32", "drop-bias"]
    assert cells["TEST-A[cuda-bf16]"][4:8] == ["cuda", "NaN", "<= 1 nats", "–"]
    assert cells["TEST-A[cuda-f32]"][1:] == [
        "TEST-Acuda-f32no CUDA device", "–", "C-A", "cuda", "–", "–", "–", "0.25",
    ]  # fmt: skip
    assert cells["TEST-A[cpu-f32]!other-trainer"][0] == "does not apply"


def test_what_fails_decides_before_what_is_nearest(tmp_path: Path) -> None:
    """An exact comparison has no margin, and is shown where it fails; else the nearest is."""
    made = runs.mixed(tmp_path)
    (bad,) = (row for row in made.rows if row.key == "TEST-A[cpu-f32]!drop-bias")
    near = replace(bad.comparisons[0], observed=0.999, slack=0.001, margin=0.001, holds=True)
    far = replace(near, observed=0.1, slack=0.9, margin=0.9)
    exactly = replace(near, op="==", observed=2, bound=3, slack=-1, margin=None, holds=False)
    for compared, shown in (((far, near, exactly), "2"), ((far, near), "0.999")):
        changed = replace(bad, comparisons=compared)
        rows = tuple(changed if row is bad else row for row in made.rows)
        line = by_key(parse(render(replace(made, rows=rows))))[bad.key]
        assert line.children[0].children[5].text == shown


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("TEST-A[cpu-f32]", "Nothing failed: 1 comparison made, and each holds."),
        ("TEST-A[cpu-f32]!drop-bias", "With the defect planted, 1 of 1 comparison failed"),
        ("TEST-A[cpu-f32]!eps", "The defect was in force, and yet nothing failed"),
        ("TEST-A[cuda-bf16]", "1 of 1 comparison failed: c1."),
        ("TEST-A[cpu-bf16]", "crash: signal 11"),
        ("TEST-A[cuda-f32]", "device: no CUDA device"),
    ],
)
def test_each_line_says_why(tmp_path: Path, key: str, why: str) -> None:
    """The outcome in a sentence, and what to look at or to do where it is no good one."""
    told = facts(by_key(parse(render(runs.mixed(tmp_path))))[key])
    assert told["Why"].text.startswith(why)
    bad = key in ("TEST-A[cpu-f32]!eps", "TEST-A[cuda-bf16]", "TEST-A[cpu-bf16]")
    assert ("Look at" in told) == bad
    assert ("To let it run" in told) == (key == "TEST-A[cuda-f32]")
    assert ("Not compared" in told) == (key in ("TEST-A[cpu-bf16]", "TEST-A[cuda-f32]"))


def test_what_went_wrong_lies_open(tmp_path: Path) -> None:
    """Nobody must search for it."""
    page = parse(render(runs.mixed(tmp_path)))
    opened = {
        body.attributes["data-outcome"]
        for body in table(page, "entries")
        if "open" in body.all("details")[0].attributes
    }
    assert opened == {"falsified", "survived", "broken"}


def test_curves_and_errors_are_drawn_for_the_run_and_for_each_entry(tmp_path: Path) -> None:
    """A chapter with those of the claims, and with each entry its own; without any, neither."""
    page = parse(render(runs.mixed(tmp_path / "a")))
    (chapter,) = page.all("section", id="recorded")
    titles = [
        "TEST-A[cpu-f32]", "TEST-A by depth: 1 case, at most 0.9877 of the bound",
    ]  # fmt: skip
    drawn = [node.attributes["aria-label"] for node in chapter.all("svg")]
    assert drawn == titles
    lines = by_key(page)
    own = {key: [s.attributes["aria-label"] for s in n.all("svg")] for key, n in lines.items()}
    assert own == {key: titles if key == "TEST-A[cpu-f32]" else [] for key in lines}
    assert "held out: 256 points of 6000" in lines["TEST-A[cpu-f32]"].text
    (nav,) = page.all("nav")
    assert "#recorded" in [link.attributes["href"] for link in nav.all("a")]
    without = parse(render(build_run(tmp_path / "b")))
    assert without.all("section", id="recorded") == []
    assert "#recorded" not in [link.attributes.get("href") for link in without.all("a")]


def test_a_picture_on_the_page_has_a_colour_for_each_of_its_classes(tmp_path: Path) -> None:
    """An element without one would be black, in the dark scheme on black."""
    page = parse(render(runs.mixed(tmp_path)))
    style = page.all("style")[0].text
    parts = [node for plot in page.all("svg", **{"class": "plot"}) for node in plot.all()]
    used = {(n.name, n.attributes["class"]) for n in parts if "class" in n.attributes}
    assert len(used) > 4
    for name, kind in used:
        assert f".plot .{kind} {{" in style or f".plot {name}.{kind} {{" in style


def test_every_claim_gate_and_machine_is_on_the_page(run: Run) -> None:
    """Also those that no row is about."""
    (main,) = parse(render(run)).all("main")
    (claims,) = main.all("section", id="claims")
    (gates,) = main.all("section", id="gates")
    (machines,) = main.all("section", id="environments")
    for declared in run.contracts:
        texts = [declared.id, declared.title, declared.version, declared.path, declared.sha256]
        for test in declared.tests:
            texts += [test.id, test.title, test.falsifier, test.if_fails, *test.invariants]
            texts += [text for claim in test.claims.items() for text in claim]
            texts += [*test.cases, *test.counter_examples]
        assert [text for text in texts if visible(text) not in claims.text] == []
        told = [text for gate in declared.gates for text in (gate.id, gate.title)]
        assert [text for text in told if visible(text) not in gates.text] == []
    for found in run.environments:
        packages = [text for item in found.packages.items() for text in item]
        variables = [f"{name}={value}" for name, value in found.variables.items()]
        texts = [found.id, found.cpu, found.platform, found.python, *packages, *variables]
        texts += [gpu.name for gpu in found.gpus]
        assert [text for text in texts if visible(text) not in machines.text] == []
    assert run.sha256 in main.text


def test_gates_have_the_status_that_the_rows_give_them(run: Run) -> None:
    """In the contracts' order, with their teeth and how many entries they rest on."""
    lines = [line for body in table(parse(render(run)), "gates") for line in body.children[1:]]
    statuses = gate_statuses(run.contracts, run.rows)
    tests = [gate.tests for declared in run.contracts for gate in declared.gates]
    for line, status, about in zip(lines, statuses, tests, strict=True):
        cells = [cell.text for cell in line.children]
        assert visible(status.gate) in cells[0]
        assert ("blocks shipping" in cells[0]) == status.ship_blocking
        assert cells[1] == status.status.name
        assert cells[5] == f"{status.teeth_caught}/{status.teeth_declared}"
        entries = sum(row.test in about for row in run.rows)
        assert cells[6].split()[0] == (str(entries) if entries else "none")


def test_the_page_is_a_function_of_the_run_and_of_nothing_else(tmp_path: Path) -> None:
    """Not of the order in which workers finished, the file's place, the clock or a hash seed."""
    made = runs.mixed(tmp_path)
    page = render(made)
    shuffled = replace(
        made, rows=made.rows[::-1], environments=made.environments[::-1], path=Path("elsewhere")
    )
    assert render(shuffled) == page
    program = (
        "import sys, hashlib; from pathlib import Path\n"
        "from aprverify.evidence.reader import read_run\n"
        "from aprverify.views.html.page import render\n"
        "print(hashlib.sha256(render(read_run(Path(sys.argv[1]))).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program, str(made.path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C"},
            cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }  # fmt: skip
    assert digests == {hashlib.sha256(page.encode()).hexdigest()}


def test_a_run_can_bring_in_no_element_attribute_or_address(run: Run) -> None:
    """What is not on the list is not there; links lead nowhere but into the page."""
    page = parse(render(run))
    nodes = page.all()
    assert {node.name for node in nodes} <= set(_ELEMENTS.split())
    assert {name for node in nodes for name in node.attributes} <= set(_ATTRIBUTES.split())
    (icon,) = page.all("link")
    assert icon.attributes["href"] == "data:,"
    links = [
        node.attributes["href"]
        for node in nodes
        if node.name != "link" and "href" in node.attributes
    ]
    assert links and all(link.startswith("#") for link in links)
    assert len(page.all("script")) == len(page.all("style")) == 1


def test_a_run_cannot_hide_anything_from_a_reader(tmp_path: Path) -> None:
    """No control character, no other direction, no invisible letter is left; each is named."""
    page = render(runs.hostile(tmp_path))
    assert _RAW.search(page) is None
    for name in ("⟨U+202E⟩", "␀", "␛", "␡".replace("␡", "⟨U+007F⟩"), "⟨U+200B⟩", "⟨U+FEFF⟩", "␍"):
        assert name in page


def test_half_a_character_is_shown_and_can_be_written(tmp_path: Path) -> None:
    """JSON may carry a lone surrogate, which no file in UTF-8 can."""
    made = runs.mixed(tmp_path)
    worst = replace(made.rows[0], worker=f"gw{runs.LONE}", measures={runs.LONE: runs.LONE})
    page = render(replace(made, rows=(worst, *made.rows[1:])))
    assert "gw⟨U+D800⟩" in page.encode().decode()


def test_the_policy_lets_nothing_in(run: Run) -> None:
    """No network, no frame, no form, and no script or style but the two whose hashes it names."""
    page = parse(render(run))
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    told = dict(part.strip().split(" ", 1) for part in policy.attributes["content"].split(";"))
    hashes = {
        name: base64.b64encode(hashlib.sha256(page.all(name)[0].text.encode()).digest()).decode()
        for name in ("script", "style")
    }
    assert told == {
        "default-src": "'none'",
        "script-src": f"'sha256-{hashes['script']}'",
        "style-src": f"'sha256-{hashes['style']}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_every_link_finds_its_target(run: Run) -> None:
    """And no two elements have one id."""
    nodes = parse(render(run)).all()
    ids = [node.attributes["id"] for node in nodes if "id" in node.attributes]
    assert len(set(ids)) == len(ids)
    assert {link.attributes["href"][1:] for link in nodes if link.name == "a"} <= set(ids)
    assert all(re.fullmatch(r"\S+", name) for name in ids)


def test_what_is_plain_is_its_own_fragment(run: Run) -> None:
    """#INV-TRAIN-007 leads to it, as does the key of an entry."""
    ids = {node.attributes["id"] for node in parse(render(run)).all() if "id" in node.attributes}
    tests = [test for declared in run.contracts for test in declared.tests]
    names = [test.id for test in tests] + [name for test in tests for name in test.invariants]
    names += [row.key for row in run.rows] + [gate.id for c in run.contracts for gate in c.gates]
    assert {anchor(name) for name in names} <= ids
    assert run.header.subject != "bundled" or set(names) <= ids


def test_a_name_of_the_page_itself_is_not_taken_over(tmp_path: Path) -> None:
    """A gate called `entries` gets another fragment, so that the filters find their table."""
    page = parse(render(build_run(tmp_path, contracts=(contract(id="entries"),))))
    (gate,) = page.all("tr", id="gate-entries")
    assert "The loss is right" in gate.text
    assert [node.name for node in page.all(id="entries")] == ["section"]


def test_long_texts_of_a_contract_are_not_repeated_in_every_row(tmp_path: Path) -> None:
    """Else a file of a megabyte makes a page of gigabytes."""
    made = runs.large(tmp_path, 100)
    words = "x" * 100_000
    (declared,) = made.contracts
    (test,) = declared.tests
    names = {f"{words}{i}": words for i in range(3)}
    invariants = tuple(names)
    long = replace(
        declared,
        title=words,
        gates=tuple(replace(gate, id=words, title=words) for gate in declared.gates),
        tests=(replace(test, title=words, if_fails=words, claims=names, invariants=invariants),),
    )
    added = len(render(replace(made, contracts=(long,)))) - len(render(made))
    assert words in render(replace(made, contracts=(long,)))
    assert added < 30 * len(words)


def test_values_nested_without_end_do_not_break_the_page() -> None:
    """A forged run may nest lists deeper than any stack."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert "nested more deeply than is shown" in exact({"x": value})


def test_a_run_without_rows_has_a_page(tmp_path: Path) -> None:
    """It says that nothing ran."""
    page = parse(render(replace(build_run(tmp_path), rows=())))
    assert table(page, "entries") == []
    assert "NOTHING RAN" in page.text


@pytest.mark.parametrize(
    "nodeid", ["$(touch pwned)", "`id`", "a'; rm -rf ~ #", "--rootdir=/", "a\nb"]
)
def test_the_command_runs_the_entry_and_nothing_else(tmp_path: Path, nodeid: str) -> None:
    """Whatever the run calls its entries: a shell passes the name on, and pytest sees no option."""
    made = build_run(tmp_path, subject="x; y")
    shell = [
        "sh",
        "-c",
        'pytest() { printf "%s\\0" "$@"; }\n' + command(made, replace(made.rows[0], nodeid=nodeid)),
    ]
    done = subprocess.run(shell, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split("\0")[:-1] == ["--subject=x; y", "--", nodeid]


def test_the_command_of_a_planted_defect_plants_it(tmp_path: Path) -> None:
    """Without --teeth there is no such entry."""
    made = build_run(tmp_path, (row(), row("caught", defect="drop-bias")))
    assert "--teeth" not in command(made, made.rows[0])
    assert "--teeth declared -- " in command(made, made.rows[1])


def test_text_is_text_wherever_it_stands() -> None:
    """In an element, in an attribute, and beside markup."""
    made = element("p", "<b>", element("i", "&"), title='"<', data_x=None, hidden=True)
    assert made == '<p title="&quot;&lt;" hidden>&lt;b&gt;<i>&amp;</i></p>'
    assert escape(escape("<")) == "&lt;"


def test_an_asset_that_would_end_its_element_is_refused() -> None:
    """Its rest would be read as markup."""
    with pytest.raises(ValueError, match="end or hide"):
        asset("script", "'</script>'")


def _colours(part: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part))


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read(theme: str) -> None:
    """Contrast of at least 4.5 to 1, WCAG 2.2 success criterion 1.4.3, in either theme."""
    style = resources.files("aprverify.views.html").joinpath("page.css").read_text("utf-8")
    light, dark = style.split("prefers-color-scheme: dark", 1)
    colours = _colours(light) if theme == "light" else _colours(dark)
    pairs = [(f"{name}", f"{name}-back") for name in ("good", "bad", "warn", "none")]
    pairs += [
        (text, back)
        for text in ("text", "quiet", "link", "good", "bad", "warn")
        for back in ("page", "raised", "mark")
    ]
    for text, back in pairs:
        high, low = sorted((_luminance(colours[text]), _luminance(colours[back])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, back)


def test_a_contract_without_a_row_is_shown(tmp_path: Path) -> None:
    """What was not run is on the page as well, and is not called met."""
    other = {**contract(), "id": "C-B", "path": "contracts/b.yaml"}
    other["gates"] = [{**other["gates"][0], "id": "GATE-B", "tests": ["TEST-B"]}]
    other["tests"] = [{**other["tests"][0], "id": "TEST-B"}]
    made = build_run(tmp_path)
    page = parse(render(replace(made, contracts=(*made.contracts, contract_from(other)))))
    (gate,) = page.all("tr", id="GATE-B")
    assert [cell.text for cell in gate.children][1::5] == ["PENDING", "none"]
