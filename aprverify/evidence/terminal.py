"""Text of a run for a terminal: whoever wrote the run gets no hold of it.

An escape sequence in a reason could repaint a verdict, a line break could write one, and a
character that turns the direction of reading could show a name backwards.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with whatever does not show, line breaks aside, written out as in ``\\x1b``."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def one_line(text: str) -> str:
    """The same of a text that may not begin a line of its own."""
    return printable(" ".join(text.split()))
