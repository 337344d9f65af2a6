"""``-k`` as people mean it: contract ids exactly, globs, and ``key:value`` of a case.

pytest matches ``-k`` words as substrings of names and refuses ``*``, so ``-k INV-TRAIN-00`` would
match everything and ``-k 'falsify_*'`` is a usage error. Here every word that is a known id, a glob
or a ``key:value`` pair becomes a sentinel keyword that only the intended items carry; ``and``,
``or``, ``not`` and parentheses stay pytest's. Words of no such form keep pytest's meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

import pytest

from aprverify.contract.model import spell
from aprverify.plan import Entry

_WORD = re.compile(r"[^\s()]+")
_ID = re.compile(r"(C|INV|GATE|FALSIFY|F)-[A-Z0-9]+(-[A-Z0-9]+)*(\.[a-z0-9-]+)?")
_PAIR = re.compile(r"([a-z_][a-z0-9_]*):([A-Za-z0-9._+-]+)")
GLOBS = pytest.StashKey[list[str]]()


def rewrite(
    expression: str, entries: Iterable[Entry], *, complete: bool = True
) -> tuple[str, list[str]]:
    """The expression with sentinels in it, and the globs that it holds.

    `complete`: every contract could be read, so that an unknown id is a mistake.

    Raises:
        pytest.UsageError: an id that no contract declares, or a pair that no case has.
    """
    entries = list(entries)
    ids = {identity for entry in entries for identity in entry.ids}
    by_folded = {identity.lower(): identity for identity in ids}
    pairs = {pair for entry in entries for pair in _pairs(entry)}
    globs: list[str] = []

    def sentinel(match: re.Match[str]) -> str:
        word = match[0]
        if word.lower() in ("and", "or", "not"):
            return word
        if "*" in word or "?" in word:
            globs.append(word)
            return glob_sentinel(word)
        if word.lower() in by_folded:
            return id_sentinel(by_folded[word.lower()])
        if _ID.fullmatch(word):
            if not complete:
                return id_sentinel(word)
            raise pytest.UsageError(f"-k: no contract declares {word}{_guess(word, ids)}")
        if _PAIR.fullmatch(word):
            if word not in pairs and complete:
                raise pytest.UsageError(f"-k: no case has {word}{_guess(word, pairs)}")
            return pair_sentinel(word)
        return word

    return _WORD.sub(sentinel, expression), globs


def keywords(entry: Entry, globs: Iterable[str]) -> set[str]:
    """The sentinels that an item of `entry` carries."""
    found = {id_sentinel(identity) for identity in entry.ids}
    found |= {pair_sentinel(pair) for pair in _pairs(entry)}
    names = [*entry.ids, entry.parameter_id, entry.test.module, entry.test.falsifier]
    return found.union(*(glob_keywords(name, globs) for name in names))


def glob_keywords(name: str, globs: Iterable[str]) -> set[str]:
    """The sentinels of the globs that a name matches, in upper or lower case as `-k` has it."""
    return {glob_sentinel(g) for g in globs if fnmatchcase(name.lower(), g.lower())}


def id_sentinel(identity: str) -> str:
    """The keyword of an exact id."""
    return f"::id.{identity}::"


def pair_sentinel(pair: str) -> str:
    """The keyword of a case parameter."""
    return f"::case.{pair}::"


def glob_sentinel(glob: str) -> str:
    """The keyword of a glob, in characters that pytest's expressions allow."""
    spelled = "".join(c if c.isalnum() or c in "_.-" else f"+{ord(c):x}+" for c in glob)
    return f"::glob.{spelled}::"


def _pairs(entry: Entry) -> set[str]:
    parameters = {**entry.case.parameters, "scale": entry.case.scale}
    if entry.defect:
        parameters["defect"] = entry.defect
    return {f"{name}:{spell(value)}" for name, value in parameters.items()}


def _guess(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), 3)
    return f"; did you mean {' or '.join(close)}?" if close else "; see `aprverify list`"
