"""Which mutants there are, what they are called, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aprverify.mutants.population import MODULE, Mutant, Population, enumerate_mutants
from aprverify.mutants.settings import MutantsError, Settings

_SOURCE = '''"""Words: 1 + 1."""
from __future__ import annotations

SCALE = 2


def used(x: int | None, *more, y: int = 3, **rest) -> int | None:
    """Adds 1 + 1."""
    print("so many", 1 + 1)
    if x < 0:
        raise ValueError("below", 0, f"{x + 1}")
    return (
        x +
        y
    )


def left(x):
    return x * 2


class Kept:
    size = 4

    def of(self):
        return 5
'''


def _settings(root: Path, **changes: object) -> Settings:
    plain = Settings(root / "mutants.yaml", "p", (), ("a.py",), {}, {"print": "words"}, {})
    return replace(plain, **changes)  # type: ignore[arg-type]


def _population(root: Path, source: str = _SOURCE, **changes: object) -> Population:
    (root / "a.py").write_text(source, encoding="utf-8")
    return enumerate_mutants(root, _settings(root, **changes))


def _at(population: Population, text: str) -> list[Mutant]:
    return [m for m in population.by_id.values() if m.was.startswith(text)]


def test_words_annotations_and_signatures_are_left_out_and_counted(tmp_path: Path) -> None:
    """None of them changes what is computed."""
    population = _population(tmp_path)
    assert _at(population, "print") == []
    assert _at(population, '"""') == []
    assert {m.spot.family for m in _at(population, "raise")} == {"statement"}
    assert {m.spot.family for m in _at(population, "def used")} == {"number"}  # the default
    assert set(population.left_out) == {"annotation", "words", "words for people"}


def test_code_that_is_left_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    """A function with all that stands in it, or a class."""
    why = {"a.py:left": "not here", "a.py:Kept": "nor here"}
    population = _population(tmp_path, left_out=why)
    assert _at(population, "return x * 2") == _at(population, "size") == []
    assert population.left_out["not here"] > 10 and population.left_out["nor here"] > 2


def test_what_is_left_out_must_be_there(tmp_path: Path) -> None:
    """Or a function that was renamed would be mutated without a word."""
    with pytest.raises(MutantsError, match=r"a\.py:gone, which is left out, is not there"):
        _population(tmp_path, left_out={"a.py:gone": "old"})


def test_a_mutant_knows_its_statement_and_who_runs_it(tmp_path: Path) -> None:
    """Reach is told by the lines of the whole statement; of a condition by its head."""
    population = _population(tmp_path)
    plus = next(m for m in _at(population, "x +") if m.spot.family == "arithmetic")
    assert (plus.function, plus.lines) == ("used", (12, 15))
    assert {m.lines for m in _at(population, "if x < 0")} == {(10, 10)}
    assert {m.function for m in _at(population, "SCALE")} == {MODULE}
    assert {m.function for m in _at(population, "size")} == {MODULE}
    assert {m.function for m in _at(population, "def used")} == {MODULE}
    assert {m.function for m in _at(population, "return 5")} == {"Kept.of"}


def test_a_name_stays_when_other_lines_change(tmp_path: Path) -> None:
    """What was said of a survivor is still said of it."""
    before = {m.id for m in _at(_population(tmp_path), "return x * 2")}
    moved = _SOURCE.replace("SCALE = 2\n", "SCALE = 2\nOTHER = 7\n")
    after = {m.id for m in _at(_population(tmp_path, moved), "return x * 2")}
    assert before == after and len(before) > 10
    other = _SOURCE.replace("return x * 2", "return x * 3")
    assert not before & {m.id for m in _population(tmp_path, other).by_id.values()}


def test_ids_are_of_one_mutant_each_where_lines_are_alike(tmp_path: Path) -> None:
    """Two equal lines of a function are two places."""
    source = "def f(x):\n    x = x + 1\n    x = x + 1\n    return x\n"
    population = _population(tmp_path, source)
    texts = [population.sources["a.py"].after(m) for m in population.by_id.values()]
    assert len(set(texts)) == len(texts) == len(population.sources["a.py"].mutants)


def test_a_label_shows_the_change(tmp_path: Path) -> None:
    """The lines that differ, and no others."""
    population = _population(tmp_path)
    labels = {population.label(m) for m in _at(population, "return x * 2")}
    assert "a.py:left `return x * 2` → `return x * 3`" in {" ".join(x.split()) for x in labels}
