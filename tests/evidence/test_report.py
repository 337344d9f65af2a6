"""The views of one run: what stands first, what stands where, and that nothing else decides it."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import pytest

from aprverify.evidence.markdown import code, escape, number, observed_and_bound
from aprverify.evidence.reader import read_run
from aprverify.evidence.records import Comparison, Run
from aprverify.evidence.report import render_report
from aprverify.evidence.summary import render_summary

from .builder import (
    ENVIRONMENT,
    GPU,
    Body,
    build_run,
    claiming,
    comparison,
    contract,
    reason,
    row,
)

CASES = {"cpu-f32": "reduced", "cuda-bf16": "full", "cuda-f32": "full"}
NO_CUDA = reason(remedy="pytest --lane cuda")
MIXED = (
    row(scale="reduced", observed=0.987654),
    row("falsified", case="cuda-bf16", observed=math.nan),
    row("not_run", case="cuda-f32", reason=NO_CUDA),
    row("caught", scale="reduced", defect="drop-bias"),
    row("survived", scale="reduced", defect="eps"),
    row("not_run", case="cuda-f32", defect="eps", reason=reason("asset", "weights | not fetched")),
)
DECLARED = contract(CASES, ("drop-bias", "eps"))


@pytest.fixture
def mixed(tmp_path: Path) -> Run:
    """A run with one of everything."""
    return build_run(
        tmp_path, MIXED, contracts=(DECLARED,), environment={**ENVIRONMENT, "gpus": [GPU]}
    )


def section(report: str, title: str) -> str:
    """The part under a second-level heading."""
    return report.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_first_line_says_what_is_not_shown(mixed: Run) -> None:
    """Counts and reasons, in one line, before anything that looks like success."""
    first = render_report(mixed).splitlines()[0]
    assert first == (
        "**Not shown:** 1 of 3 claim entries did not run (no CUDA device: 1); full scale for 1 of "
        "1 claim entry that held; 1 of 3 planted defects did not run (weights \\| not fetched: 1); "
        "other subjects than bundled, other machines than this run's, and faults that no claim is "
        "about; who made this run (whether it is signed, aprverify check says)."
    )


def test_a_perfect_run_still_says_what_it_does_not_show(tmp_path: Path) -> None:
    """No run shows everything."""
    first = render_report(build_run(tmp_path)).splitlines()[0]
    assert first.startswith("**Not shown:** other subjects than bundled")


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ((row(),), {}, "that the falsifiers can fail (no defect was planted)"),
        ((row(),), {"interrupted": True}, "what the interruption cut off"),
        ((row("broken", reason=reason("crash", "")),), {}, "1 of 1 claim entry broke"),
        ((row("not_run", reason=reason("asset", "x" * 99)),), {}, "(asset not fetched: 1)"),
    ],
)
def test_the_first_line_owns_up(
    tmp_path: Path, rows: tuple[Body, ...], options: Body, said: str
) -> None:
    """To missing teeth, to an interruption and to what broke."""
    assert said in render_report(build_run(tmp_path, rows, **options)).splitlines()[0]


def test_a_selection_is_not_the_suite(tmp_path: Path) -> None:
    """A run of a part says so in its first line, and which part below."""
    selection = {
        "keyword": "INV-A",
        "markers": "",
        "paths": [],
        "lane": "cpu",
        "teeth": "declared",
        "complete": False,
    }
    report = render_report(build_run(tmp_path, selection=selection))
    assert "entries that were not asked for" in report.splitlines()[0]
    assert "| selection | -k INV-A, lane cpu |" in report


_DEAR = {
    "keyword": "",
    "markers": "",
    "paths": [],
    "lane": "all",
    "teeth": "declared",
    "complete": False,
}


@pytest.mark.parametrize(
    ("entries", "begins"),
    [
        (1, "1 entry left out for its cost (by committed runs over 15 s, or planted under a cla"),
        (2, "2 entries left out for their cost (by committed runs over 15 s, or planted under a"),
    ],
)
def test_what_was_left_out_for_its_cost_is_counted(
    tmp_path: Path, entries: int, begins: str
) -> None:
    """In words that fit one and many."""
    selection = {**_DEAR, "too_dear": {"seconds": 15, "entries": entries}}
    first = render_report(build_run(tmp_path, selection=selection)).splitlines()[0]
    assert first.startswith(f"**Not shown:** {begins}")
    assert "not asked for" not in first


def test_a_cost_does_not_hide_what_else_was_left_out(tmp_path: Path) -> None:
    """Of three cases one has a row, and only one of the others is said to be too dear."""
    selection = {**_DEAR, "too_dear": {"seconds": 15, "entries": 1}}
    contracts = (contract({"cpu-f32": "full", "cpu-b": "full", "cpu-c": "full"}),)
    run = build_run(tmp_path, contracts=contracts, selection=selection)
    assert "entries that were not asked for" in render_report(run).splitlines()[0]


def test_the_verdict_follows_with_its_counts(mixed: Run) -> None:
    """The worst outcome by name, then how many held and were caught."""
    assert (
        "**FALSIFIED: 1 claim entry. 1 of 3 claim entries held, 1 of 3 planted defects caught.**"
        in render_report(mixed)
    )


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ((row(),), {}, "Nothing was falsified. 1 of 1 claim entry held"),
        ((row("survived", defect="drop-bias"),), {}, "VACUOUS: 1 planted defect went unnoticed."),
        ((row("broken"),), {}, "BROKEN: 1 entry reached no verdict."),
        ((row("not_run"),), {}, "NOTHING RAN."),
        ((row("not_run"),), {"require": ["cuda"]}, "INCOMPLETE: 1 entry did not run, and cuda was"),
        ((row(),), {"interrupted": True}, "INTERRUPTED: no verdict."),
    ],
)
def test_each_verdict_has_its_sentence(
    tmp_path: Path, rows: tuple[Body, ...], options: Body, said: str
) -> None:
    """In the report and at the end of the summary alike."""
    run = build_run(tmp_path, rows, **options)
    assert said in render_report(run)
    assert said in " ".join(render_summary(run).split("\n\n")[-1].split())


def test_a_gate_shows_what_decides_it(mixed: Run) -> None:
    """Its contract, its failing comparison, its teeth, and in bold that it blocks shipping."""
    gates = section(render_report(mixed), "Gates")
    assert "| *C-A* |  |  |  |  |\n| **GATE-A** | FALSIFIED | `NaN <= 1 nats` | – | 1/2 |" in gates
    assert "- GATE-A: TEST-A[cuda-bf16] was falsified" in gates


def test_the_report_names_counter_examples_that_do_not_apply(tmp_path: Path) -> None:
    """A DISCHARGED gate without some of its teeth says so in the first line and at the gate."""
    foreign = row("not_run", defect="eps", reason=reason("subject", "eps patches another trainer"))
    rows = (row(), row("caught", defect="drop-bias"), foreign)
    declared = contract(counter_examples=("drop-bias", "eps"))
    report = render_report(build_run(tmp_path, rows, contracts=(declared,)))
    assert (
        "1 of 2 planted defects do not apply to the subject (eps patches" in report.split("\n")[0]
    )
    assert "2 planted defects did not run" not in report
    gates = section(report, "Gates")
    assert "DISCHARGED" in gates and "| 1/2 |" in gates
    assert "- GATE-A: TEST-A: counter-example eps does not apply to the subject" in gates
    assert "| eps | does not apply 1 |" in section(report, "Teeth")


def test_a_failure_tells_how_to_see_it_again(mixed: Run) -> None:
    """Claim, values, what to look at, and the command."""
    failures = section(render_report(mixed), "Failures")
    assert "### `TEST-A[cuda-bf16]` falsified" in failures
    assert "| c1<br>`loss <= bound` | `NaN` | `<= 1 nats` | – |" in failures
    assert "Look at: the loss function \\| its mean" in failures
    entry = "'contracts/a.yaml::falsify_eval[cuda-bf16]'"
    assert f"-- {entry}`" in failures
    assert "--teeth declared -- " in failures.partition("!eps` survived")[2]
    assert "### `TEST-A[cpu-f32]!eps` survived" in failures


def test_what_broke_opens_on_a_click_behind_what_failed(tmp_path: Path) -> None:
    """A verdict is read first; where there is none, what broke stands open."""
    broken = row("broken", reason=reason("error", "out of memory"))
    falsified = row("falsified", case="cpu-b")
    contracts = (contract({"cpu-f32": "full", "cpu-b": "full"}),)
    run = build_run(tmp_path, (broken, falsified), contracts=contracts)
    shown, _, folded = section(render_report(run), "Failures").partition(
        "<summary>1 more</summary>"
    )
    assert "### `TEST-A[cpu-b]` falsified" in shown and "broken" not in shown
    assert "### `TEST-A[cpu-f32]` broken" in folded
    (tmp_path / "alone").mkdir()
    alone = build_run(tmp_path / "alone", (broken,))
    assert "<details>" not in section(render_report(alone), "Failures")


def test_what_did_not_run_comes_with_the_command_that_runs_it(mixed: Run) -> None:
    """Grouped by reason, each with its entries."""
    missing = section(render_report(mixed), "What did not run")
    assert "| 1 | no CUDA device<br>`pytest --lane cuda` |" in missing
    assert "- `TEST-A[cuda-f32]`" in missing


def test_the_teeth_have_every_declared_pair_and_device(mixed: Run) -> None:
    """A survivor stands out in the line of its test; a pair without a row shows a dash."""
    teeth = section(render_report(mixed), "Teeth")
    assert "| test | cpu | cuda |" in teeth
    assert "| TEST-A | **survived** 1, caught 1 | not run 1 |" in teeth
    assert "| drop-bias | caught 1 | – |" in teeth
    assert "| eps | **survived** 1 | not run 1 |" in teeth


def test_the_smallest_margin_comes_first_and_a_claim_once(tmp_path: Path) -> None:
    """Of what held only; in the case in which the claim is tightest; in tolerances."""
    cases = {f"cpu-{n:02}": "full" for n in range(12)}
    rows = tuple(row(case=case, observed=n / 12) for n, case in enumerate(cases))
    report = render_report(build_run(tmp_path, rows, contracts=(contract(cases),)))
    closest = section(report, "Closest to failing")
    assert re.findall(r"cpu-(\d\d)", closest) == ["11"]
    assert "| +0.083 | TEST-A: c1<br>`cpu-11` | `0.9167` | `<= 1 nats` |" in closest


def test_at_most_ten_margins_are_shown(tmp_path: Path) -> None:
    """A reviewer has two minutes."""
    declared = contract()
    losses = {f"loss_{n}": n / 12 for n in range(12)}
    declared["tests"][0]["claims"] = [{"id": name, "expr": f"{name} <= 1"} for name in losses]
    compared = [
        comparison(loss, claim=name, text=f"{name} <= 1", bound=1) for name, loss in losses.items()
    ]
    body = row(comparisons=compared, measures=losses)
    report = render_report(build_run(tmp_path, (body,), contracts=(declared,)))
    found = re.findall(r"TEST-A: loss_(\d+)", section(report, "Closest to failing"))
    assert found == [str(n) for n in range(11, 1, -1)]


def test_the_provenance_names_machine_versions_and_hashes(mixed: Run) -> None:
    """What somebody needs who wants the same run."""
    provenance = section(render_report(mixed), "Provenance")
    for fact in ("`run-1`", "pytest -k falsify_*", "Some GPU", "2.13.0", mixed.sha256, "no git"):
        assert fact in provenance


def test_every_entry_is_in_the_appendix_in_the_order_of_the_contract(tmp_path: Path) -> None:
    """Parallel workers finish in any order; reports of two runs can still be compared."""
    rows = tuple(reversed(MIXED))
    machine = {**ENVIRONMENT, "gpus": [GPU]}
    report = render_report(build_run(tmp_path, rows, contracts=(DECLARED,), environment=machine))
    found = re.findall(r"^\| `(TEST-A\S+)` ", section(report, "Every entry"), re.MULTILINE)
    assert found == [
        "TEST-A[cpu-f32]",
        "TEST-A[cpu-f32]!drop-bias",
        "TEST-A[cpu-f32]!eps",
        "TEST-A[cuda-bf16]",
        "TEST-A[cuda-f32]",
        "TEST-A[cuda-f32]!eps",
    ]


def test_a_report_depends_on_the_file_alone(mixed: Run, tmp_path: Path) -> None:
    """Read again from elsewhere, byte for byte the same."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(mixed.path, elsewhere)
    assert render_report(read_run(elsewhere)) == render_report(mixed)
    assert str(tmp_path) not in render_report(mixed)


def test_no_measured_text_breaks_a_table(tmp_path: Path) -> None:
    """Bars, line breaks, backticks and markup in what a trainer said stay in their cell."""
    nasty = "a | b\n`c` <b>[x](y)"
    claim = "loss contains 'a'"
    body = row(comparisons=[comparison(nasty, "a", "contains", text=claim)])
    teeth = row("broken", defect="drop-bias", reason=reason("error", nasty))
    report = render_report(build_run(tmp_path, (body, teeth), contracts=(claiming(claim),)))
    for block in re.findall(r"(?:^\|.*\n)+", report, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1
    assert "<b>" not in re.sub(r"(`+).*?\1|\\<", "", report)


def test_gates_without_rows_are_named_apart(tmp_path: Path) -> None:
    """They are not lost, and do not bury the others."""
    other = {**contract(), "id": "C-B", "path": "contracts/b.yaml"}
    other["gates"] = [{**other["gates"][0], "id": "GATE-B", "tests": ["TEST-B"]}]
    other["tests"] = [{**other["tests"][0], "id": "TEST-B"}]
    run = build_run(tmp_path, contracts=(contract(), other))
    assert "1 gate without a row in this run" in section(render_report(run), "Gates")
    assert "`GATE-B`" in section(render_report(run), "Gates")
    assert "(1 gate without a row in this run)" in render_summary(run)


def test_the_summary_fits_a_terminal(mixed: Run) -> None:
    """No line over 120 columns."""
    assert max(len(line) for line in render_summary(mixed).splitlines()) <= 120


def test_the_summary_names_what_did_not_run_with_its_remedy(mixed: Run) -> None:
    """Ready to be copied."""
    summary = render_summary(mixed)
    assert "     1  no CUDA device\n        → pytest --lane cuda\n" in summary
    assert summary.splitlines()[-1].startswith("FALSIFIED: 1 claim entry.")


def test_colour_is_colour_only(mixed: Run) -> None:
    """Without it there is no escape; with it nothing but escapes is added."""
    plain, coloured = render_summary(mixed), render_summary(mixed, colour=True)
    assert "\x1b" not in plain
    assert "\x1b[31mFALSIFIED" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (373509120, "373509120"),
        (0.000012345678, "1.235e-05"),
        (2048.0, "2048"),
        (math.nan, "NaN"),
        (-math.inf, "-∞"),
        (True, "true"),
        (["a", 1.23456], "[a, 1.235]"),
    ],
)
def test_numbers_have_four_significant_digits(value: object, text: str) -> None:
    """Integers are whole: a count of parameters is exact or it is nothing."""
    assert number(value) == text


def test_two_numbers_that_differ_are_never_written_alike() -> None:
    """1.00001 > 1 must not read 1 <= 1."""
    close = Comparison("c1", "x <= 1", "<=", 1.00001, 1.0, "", -1e-5, -1e-5, False)
    assert observed_and_bound(close) == ("1.00001", "<= 1.0")


def test_text_cannot_leave_its_cell() -> None:
    """Bars and line breaks end cells, backticks end code."""
    assert escape("a|b\nc") == "a\\|b c"
    assert code("a`|b") == "``a`\\|b``"
