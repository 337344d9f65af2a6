"""A story for a terminal. Whatever a run says passes through `evidence/terminal.py`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from aprverify.evidence.markdown import clip, count
from aprverify.evidence.terminal import one_line, printable
from aprverify.explain.planted import ALIKE, IN_PART, Cause
from aprverify.explain.story import Broken, FailedTest, Failure, Other, Reproduction, Story

_WIDTH = 100
_NAME = 18
_FEW = 4
_OF_THE_SAME = 8


def render(story: Story) -> str:
    """The story, in lines of at most 100 columns; commands and keys are never broken."""
    lines = [
        f"{one_line(story.about)}, run {one_line(story.run_id)}, subject {one_line(story.subject)}"
    ]
    lines += _paragraph(story.verdict)
    lines += [line for note in story.notes for line in _paragraph(note)]
    for number, failure in enumerate(story.failures, start=1):
        lines += ["", *_failure(number, len(story.failures), failure)]
    for other in story.others:
        lines += ["", *_other(other)]
    if not story.failures:
        lines += ["", *_no_failure(story)]
    lines += ["", *_paragraph(f"Not shown: {story.not_shown}")]
    return printable("\n".join(lines)) + "\n"


def _no_failure(story: Story) -> Iterator[str]:
    if any(other.kind != "not_run" for other in story.others):
        yield "No claim was falsified."
        return
    if not story.closest:
        yield from _paragraph("Nothing failed. Nothing that held has a tolerance to be near to.")
        return
    yield "Nothing failed. What came closest to failing:"
    for near in story.closest:
        yield from _wrapped("", near)


def _failure(number: int, total: int, failure: Failure) -> Iterator[str]:
    entries = sum(len(test.failed) for test in failure.tests)
    tests = count(len(failure.tests), "test")
    yield f"FAILURE {number} of {total}: {count(entries, 'entry', 'entries')} of {tests}"
    for test in failure.tests:
        yield from _failed_test(test)
    yield from _motivation(failure)
    yield from _surroundings(failure)
    yield from _many("looks like", list(_causes(failure)))
    for hint in dict.fromkeys(test.if_fails for test in failure.tests):
        yield from _wrapped("look at", hint)
    yield from _reproduction(failure.reproduction)
    yield from _item("next", failure.next)


def _failed_test(test: FailedTest) -> Iterator[str]:
    yield from _wrapped("claim", f"{test.rule} ({test.contract}, {test.place})")
    cases = [key.removeprefix(test.test) for key in test.failed]
    held = f"; {count(test.held_cases, 'other case')} held" if test.held_cases else ""
    yield from _wrapped("", f"{test.test} failed in {count(len(cases), 'case')}{held}")
    if test.only_with:
        yield from _wrapped("only with", "; ".join(test.only_with))
    yield from _item("told by", [test.told_by])
    yield from _many("observed", [_broken(broken) for broken in test.broken])
    if test.held_claims:
        yield from _wrapped("held beside it", f"claims {', '.join(test.held_claims)}")
    yield from _many("first at fault", test.first_at_fault)
    yield from _many("went wrong at", test.divergence or ["the row names no place"])


def _motivation(failure: Failure) -> Iterator[str]:
    for rule in dict.fromkeys(rule for test in failure.tests for rule in test.invariants):
        yield from _wrapped("stands for", rule)
    for behind in failure.behind:
        told = behind.motivation or f"the run does not record it; {behind.contract} says it"
        yield from _wrapped("guards against", told)
        yield from _many("references", behind.references)


def _broken(broken: Broken) -> str:
    margin = broken.margin
    far = f"; margin {margin:+.3g} tolerances" if isinstance(margin, float) else ""
    return f"{broken.claim}: {broken.text}: {clip(str(broken.observed), 200)} {broken.bound}{far}"


def _surroundings(failure: Failure) -> Iterator[str]:
    around = failure.surroundings
    failed = [*around.failed_same, *around.failed_other]
    alone = "nothing else of this run"
    yield from _wrapped("failed too", _some(failed, _OF_THE_SAME) if failed else alone)
    if around.held_same:
        yield from _wrapped("same contract held", _some(around.held_same, _OF_THE_SAME))
    tests, contracts = around.held_other
    told = f"{count(tests, 'test')} of {count(contracts, 'other contract')}"
    yield from _wrapped("others held", told)
    for cause in failure.causes:
        if cause.ruled_out_by is not None:
            yield from _wrapped(
                "which rules out", f"{cause.defect}: {cause.ruled_out_by} catches it, and held"
            )


def _causes(failure: Failure) -> Iterator[str]:
    if failure.already_there:
        yield (
            f"{', '.join(failure.already_there)}: planted here, changed nothing, though they "
            "do elsewhere: as if the trainer had such a fault already"
        )
    if not failure.compared:
        yield (
            "no planted defect of this test is known to this run or to the evidence given; "
            "--evidence names runs that have some"
        )
        return
    told = [c for c in failure.causes if c.likeness >= IN_PART and c.ruled_out_by is None]
    if not any(c.alike for c in told):
        yield f"none of the {count(failure.compared, 'planted defect')} looks like this" + (
            "; in part:" if told else ""
        )
    for cause in told:
        yield _cause(cause)


def _cause(cause: Cause) -> str:
    shares = f"likeness {cause.likeness:.2f} of 1"
    parts = [shares if cause.likeness >= ALIKE else f"{shares}, in part only"]
    if not cause.same_case:
        parts.append("seen in another case")
    if cause.on_top:
        parts.append("planted on top of this failure, so they share it anyway")
    if cause.differs:
        parts.append(f"but not in {_some(cause.differs, 2)}")
    return f"{cause.defect}: {'; '.join(parts)} ({cause.run_id})"


def _reproduction(again: Reproduction) -> Iterator[str]:
    yield from _item("reproduce", [again.entry] if again.entry else [])
    yield from _item("as evidence", [again.recorded])
    if again.others:
        told = f"which also runs {count(again.others, 'other entry', 'other entries')}"
        yield from _wrapped("", f"{told}: -k cannot name the value that tells them apart")
    yield from _many("needs", again.needs)
    yield from _wrapped("seed", again.seed)
    yield from _wrapped("commit", again.commit)
    yield from _wrapped("machine", again.machine)
    yield from _wrapped("versions", again.versions)


def _other(other: Other) -> Iterator[str]:
    mark = "DID NOT RUN" if other.kind == "not_run" else other.kind.upper()
    yield from _paragraph(f"{mark}: {other.headline}")
    shown = other.entries[: _FEW if other.kind != "not_run" else 1]
    yield from _item("entry", shown)
    if len(other.entries) > len(shown):
        yield from _wrapped("", f"and {len(other.entries) - len(shown)} more")
    yield from _wrapped("said", other.said)
    yield from _wrapped("means", other.meaning)
    if other.do:
        yield from _wrapped("do", other.do)
    if other.again:
        yield from _item("run again", [other.again])


def _some(texts: Sequence[str], most: int) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _many(name: str, texts: Iterable[str]) -> Iterator[str]:
    for index, text in enumerate(texts):
        yield from _wrapped("" if index else name, text)


def _item(name: str, texts: Iterable[str]) -> Iterator[str]:
    """Lines to be copied: never broken, however long."""
    for index, text in enumerate(texts):
        yield f"  {'' if index else name:<{_NAME}} {one_line(text)}"


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        one_line(text),
        _WIDTH,
        initial_indent=f"  {name:<{_NAME}} ",
        subsequent_indent=" " * (_NAME + 3),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _paragraph(text: str) -> list[str]:
    # Indented where it goes on, so that nothing a run says begins a line of its own.
    return textwrap.wrap(
        one_line(text),
        _WIDTH,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
