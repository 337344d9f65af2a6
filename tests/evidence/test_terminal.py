"""What a run says reaches a terminal as text only: it moves no cursor and forges no line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from aprverify.commands import diff, history, report, show
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import SchemaViolation
from aprverify.evidence.summary import render_summary
from aprverify.evidence.terminal import one_line, printable

from .builder import build_run, reason, row

EVIL = "\x1b[2J\x1b]0;t\x07\u202eteg \u2066x\u200b\x9b1m\x7f\x85y\u2028z\r\nGATE MET: all.\nend"
FORBIDDEN = "\x1b\x07\u202e\u2066\u200b\x9b\x7f\x85\u2028\r"


def harmless(text: str) -> bool:
    """No character that a terminal obeys, and no line that the run wrote."""
    forged = any(line.startswith("GATE MET") for line in text.splitlines())
    return not set(FORBIDDEN) & set(text) and not forged


@pytest.mark.parametrize("character", FORBIDDEN)
def test_what_does_not_show_is_written_out(character: str) -> None:
    """Where it stood, so that a reader sees that there was something."""
    assert printable(f"a{character}b") == f"a{character.encode('unicode_escape').decode()}b"


def test_plain_text_stays_as_it_is() -> None:
    """Letters of any script, signs, and the breaks between lines."""
    text = "margin –0.5 ≤ ∞ · größer 大 → ok\n  next"
    assert printable(text) == text
    assert one_line("a\n b\x1bc") == "a b\\x1bc"


def evil_runs(tmp_path: Path) -> tuple[Path, Path]:
    """One whose only claim holds, and one that broke and did not run for reasons of its own."""
    build_run(tmp_path / "a", run_id="a")
    rows = (
        row("broken", reason=reason("error", EVIL, EVIL)),
        row("not_run", defect="drop-bias", reason=reason("device", EVIL, EVIL)),
    )
    build_run(tmp_path / "b", rows, run_id="b")
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize("colour", [False, True])
def test_the_summary_of_a_run_obeys_nobody_but_itself(tmp_path: Path, colour: bool) -> None:
    """Its own colours are the only sequences in it."""
    _, evil = evil_runs(tmp_path)
    text = render_summary(read_run(evil), colour=colour)
    assert "GATE MET" in text
    for sequence in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"):
        text = text.replace(sequence, "")
    assert harmless(text)


@pytest.mark.parametrize("json", [False, True])
def test_commands_that_print_rows_print_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], json: bool
) -> None:
    """Difference, history, show and a report on the terminal; JSON too, without a loss."""
    a, b = evil_runs(tmp_path)
    calls = [(diff, "diff", a, b), (history, "history", "TEST-A", a, b)]
    if json:
        calls = [(module, *words, "--json") for module, *words in calls]
    else:
        calls += [
            (show, "show", "TEST-A", "--run", b),
            (report, "report", b, "--output", "-"),
            (report, "report", b, "--annotations"),
        ]
    for module, *words in calls:
        parser = argparse.ArgumentParser()
        module.add_parser(parser.add_subparsers())
        options = parser.parse_args([str(word) for word in words])
        options.suite = argparse.Namespace(default_subject="bundled")
        options.run(options)
        said = capsys.readouterr()
        assert said.out and harmless(said.out), words
        assert harmless(said.err), words


def test_a_refusal_quotes_no_sequence() -> None:
    """The file that it quotes was just found to be no evidence."""
    refusal = SchemaViolation(Path("run.jsonl"), 3, f"a second row for {EVIL}")
    assert harmless(str(refusal)) and "\n" not in str(refusal)
