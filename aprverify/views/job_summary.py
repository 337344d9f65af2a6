"""A run as a job summary of GitHub: its report without pictures, cut to what GitHub takes."""

from __future__ import annotations

from collections.abc import Sequence

from aprverify.evidence.records import Run
from aprverify.evidence.report import Section, head, sections

LIMIT = 1024 * 1024
"""Bytes of UTF-8 that GitHub takes of one step; it drops a longer summary as a whole."""


def render_job_summary(run: Run, limit: int = LIMIT) -> str:
    """The head of the report, and each section that still fits, whole or not at all.

    Sections come in the order of their worth. What was left out is named in one line of its own.
    """
    beginning = "\n\n".join(head(run)) + "\n"
    found = sections(run)
    room = limit - _size(beginning) - _size(_left_out(found))
    kept: list[Section] = []
    for section in found:
        size = _size(_block(section))
        if size <= room:
            kept.append(section)
            room -= size
    dropped = [section for section in found if section not in kept]
    text = beginning + "".join(_block(section) for section in kept)
    return text + (_left_out(dropped) if dropped else "")


def _block(section: Section) -> str:
    return f"\n{section.text}\n"


def _left_out(dropped: Sequence[Section]) -> str:
    names = ", ".join(section.title for section in dropped)
    return (
        f"\n**Left out here,** since GitHub takes no more than 1 MiB: {names}. "
        "`aprverify report RUN` writes all of it.\n"
    )


def _size(text: str) -> int:
    return len(text.encode())
