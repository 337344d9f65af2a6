"""Every mutant that could be drawn, each with a name that stays when other lines change.

A *site* is one thing at one place that can be changed: ``a * b`` is one site although its sign can
become any of eleven others. The draw takes one mutant of a site, so that code counts by how much of
it there is, and not by how many ways there are to spoil it.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from aprverify.mutants.operators import Position, Spot, changed, spots
from aprverify.mutants.settings import MutantsError, Settings

MODULE = "<module>"
"""The function of what runs when a module is imported, default values and decorators included."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        id: follows from file, function, operator, the line's text, and which of those alike it is.
        file: below the suite's root.
        function: qualified name, or `MODULE`.
        spot: what is changed where.
        lines: first and last line of the statement around it; of ``if`` and ``for`` the head only.
        was: the line, stripped.
    """

    id: str
    file: str
    function: str
    spot: Spot
    lines: tuple[int, int]
    was: str

    @property
    def site(self) -> tuple[str, str, Position, Position]:
        """What the draw takes one mutant of."""
        return self.file, self.spot.family, self.spot.start, self.spot.end

    @property
    def stratum(self) -> tuple[str, str]:
        """File and family."""
        return self.file, self.spot.family


@dataclass(frozen=True)
class Source:
    """A file, and the mutants that can be made of it."""

    file: str
    text: str
    mutants: Sequence[Mutant]

    def after(self, mutant: Mutant) -> str | None:
        """The whole text with the change; None where it is no Python or the same program."""
        return changed(self.text, mutant.spot)

    def label(self, mutant: Mutant) -> str:
        """``FILE:FUNCTION `was` → `becomes```: what a person needs to think about it."""
        text = self.after(mutant)
        if text is None:
            return ""
        before, after = self.text.splitlines(), text.splitlines()
        ahead = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
        behind = 0
        while (
            behind < min(len(before), len(after)) - ahead
            and before[-1 - behind] == after[-1 - behind]
        ):
            behind += 1
        was, becomes = before[ahead : len(before) - behind], after[ahead : len(after) - behind]
        return f"{self.file}:{mutant.function} `{_joined(was)}` → `{_joined(becomes)}`"


def _joined(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines)


@dataclass
class Population:
    """All sources, and how many spots were left out, by reason."""

    sources: Mapping[str, Source]
    left_out: Counter[str] = field(default_factory=Counter)

    @cached_property
    def by_id(self) -> Mapping[str, Mutant]:
        """Every mutant by its id."""
        return {m.id: m for source in self.sources.values() for m in source.mutants}

    def label(self, mutant: Mutant) -> str:
        """See `Source.label`."""
        return self.sources[mutant.file].label(mutant)


def enumerate_mutants(root: Path, settings: Settings) -> Population:
    """The population of `settings`.

    Raises:
        MutantsError: what is to be left out is not there.
    """
    sources: dict[str, Source] = {}
    left_out: Counter[str] = Counter()
    used: set[str] = set()
    for file in settings.files:
        text = (root / file).read_text(encoding="utf-8")
        places = _Places(file, text, settings)
        mutants = list(_named(file, text, places, left_out))
        used |= places.used
        sources[file] = Source(file, text, mutants)
    if missing := sorted(settings.left_out.keys() - used):
        raise MutantsError(f"{settings.path}: {missing[0]}, which is left out, is not there")
    return Population(sources, left_out)


def _named(file: str, text: str, places: _Places, left_out: Counter[str]) -> Iterator[Mutant]:
    lines = text.splitlines()
    alike: Counter[tuple[str, ...]] = Counter()
    for spot in sorted(spots(text), key=lambda s: (s.start, s.end, s.operator, s.index)):
        if reason := places.reason_against(spot):
            left_out[reason] += 1
            continue
        function, statement = places.around(spot.start)
        was = lines[spot.start[0] - 1].strip()
        name = (file, function, spot.operator, was)
        digest = hashlib.sha256("\0".join((*name, str(alike[name]))).encode()).hexdigest()
        alike[name] += 1
        yield Mutant(digest[:10], file, function, spot, statement, was)


class _Places:
    """What stands where in one file."""

    def __init__(self, file: str, text: str, settings: Settings) -> None:
        self._file, self._settings = file, settings
        self._lines = text.splitlines()
        self._silent: list[tuple[Position, Position, str]] = []
        self._functions: list[tuple[Position, Position, str]] = []
        self._signatures: list[tuple[Position, Position]] = []
        self._defaults: list[tuple[Position, Position]] = []
        self._statements: list[tuple[Position, Position, int, int]] = []
        self.used: set[str] = {file} & settings.left_out.keys()
        self._read(ast.parse(text), "")

    def reason_against(self, spot: Spot) -> str:
        """Why no mutant is made there, or ""."""
        if why := self._settings.left_out.get(self._file):
            return why
        for start, end, name in self._functions:
            why = self._settings.left_out.get(f"{self._file}:{name}")
            if why and start <= spot.start <= end:
                return why
        for start, end, why in self._silent:
            if start <= spot.start and spot.end <= end:
                return why
        return ""

    def around(self, position: Position) -> tuple[str, tuple[int, int]]:
        """The function that runs what stands there, and the lines of its statement."""
        names = [name for start, end, name in self._functions if start <= position <= end]
        inside = [s for s in self._statements if s[0] <= position <= s[1]]
        _, _, first, last = max(inside, default=(position, position, position[0], position[0]))
        if any(start <= position <= end for start, end in self._signatures):
            names = names[:-1]  # a default value is worked out where the function is defined
        return names[-1] if names else MODULE, (first, last)

    def _span(self, node: ast.AST) -> tuple[Position, Position]:
        assert isinstance(node, (ast.stmt, ast.expr, ast.arg, ast.keyword))
        assert node.end_lineno is not None and node.end_col_offset is not None
        return (
            self._place(node.lineno, node.col_offset),
            self._place(node.end_lineno, node.end_col_offset),
        )

    def _place(self, line: int, column: int) -> Position:
        return line, len(self._lines[line - 1].encode()[:column].decode())

    def _read(self, node: ast.AST, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = inside
            if isinstance(child, ast.stmt):
                self._note_statement(child)
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{inside}.{child.name}".lstrip(".")
                self._note_definition(child, name)
            self._note_silence(child)
            self._read(child, name)

    def _note_statement(self, node: ast.stmt) -> None:
        start, end = self._span(node)
        body = getattr(node, "body", None)
        last = max(start[0], body[0].lineno - 1) if isinstance(body, list) and body else end[0]
        self._statements.append((start, end, start[0], last))

    def _note_definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, name: str
    ) -> None:
        if f"{self._file}:{name}" in self._settings.left_out:
            self.used.add(f"{self._file}:{name}")
        start, end = self._span(node)
        if node.decorator_list:
            start = self._span(node.decorator_list[0])[0]
            start = (start[0], start[1] - 1)  # with its @
        if isinstance(node, ast.ClassDef):
            # A class body runs on import; only for leaving out does the class count as a place.
            if f"{self._file}:{name}" in self._settings.left_out:
                self._functions.append((start, end, name))
            return
        self._functions.append((start, end, name))
        body = self._span(node.body[0])[0]
        self._signatures.append((start, (body[0], max(body[1] - 1, 0))))
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg) and argument.annotation is not None:
                self._silent.append((*self._span(argument.annotation), "annotation"))
        if node.returns is not None:
            self._silent.append((*self._span(node.returns), "annotation"))
        markers = [a for a in (node.args.vararg, node.args.kwarg) if a is not None]
        for marker in markers:
            (line, column), end = self._span(marker)
            self._silent.append(((line, column - 2), end, "signature"))
        if node.args.kwonlyargs and node.args.vararg is None:
            self._silence_star(node)

    def _silence_star(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """The bare star of a signature, which is no multiplication."""
        for line in range(node.lineno, node.body[0].lineno + 1):
            column = self._lines[line - 1].find("*,")
            if column >= 0:
                self._silent.append(((line, column), (line, column + 1), "signature"))
                return

    def _note_silence(self, node: ast.AST) -> None:
        for part, why in self._silenced(node):
            self._silent.append((*self._span(part), why))

    def _silenced(self, node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
        """What of a node no run can tell from anything else, and why."""
        match node:
            case ast.AnnAssign():
                yield node.annotation, "annotation"
            case ast.Import() | ast.ImportFrom():
                yield node, "import"
            case ast.If() if ast.unparse(node.test).endswith("TYPE_CHECKING"):
                yield node, "import"
            case ast.JoinedStr():
                yield node, "words for people"
            case ast.Raise(exc=ast.Call(args=arguments, keywords=keywords)):
                for argument in (*arguments, *(keyword.value for keyword in keywords)):
                    yield argument, "words for people"
            case ast.Call(func=function):
                if why := self._settings.calls_left_out.get(ast.unparse(function)):
                    yield node, why
