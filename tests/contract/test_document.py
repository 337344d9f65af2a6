"""Contract files: YAML 1.2 scalars, line marks, and a refusal for whatever is ambiguous."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from aprverify.contract.document import DocumentError, read_document


def read(tmp_path: Path, text: str | bytes) -> Any:
    """The data of a file that holds `text`."""
    path = tmp_path / "file.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_document(path).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("-.5", -0.5), ("5.", 5.0), (".inf", math.inf),
        ("-.Inf", -math.inf), ("010", 10), ("0o17", 15), ("0x1F", 31), ("+3", 3), ("no", "no"),
        ("on", "on"), ("Off", "Off"), ("y", "y"), ("1:30", "1:30"), ("1_000", "1_000"),
        ("2001-01-01", "2001-01-01"), ("true", True), ("FALSE", False), ("tRue", "tRue"),
        ("~", None), ("", None), ("null", None), ("'1'", "1"), ("=", "="), ("<<", "<<"),
        ("1e", "1e"), ("0b1", "0b1"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: Any) -> None:
    """No text becomes a boolean, a date, an octal or a sexagesimal number."""
    found = read(tmp_path, f"a: {text}\n")["a"]
    assert found == value and type(found) is type(value)


def test_nan_is_a_number(tmp_path: Path) -> None:
    """In all three spellings of the core schema."""
    assert all(math.isnan(v) for v in read(tmp_path, "[.nan, .NaN, .NAN]\n"))


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    """Editors write one unasked."""
    assert read(tmp_path, b"\xef\xbb\xbfid: a\n") == {"id": "a"}


def test_aliases_are_written_out(tmp_path: Path) -> None:
    """An anchor used twice is the same value twice."""
    assert read(tmp_path, "a: &x [1]\nb: *x\n") == {"a": [1], "b": [1]}


_BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' stands twice (first on line 1)"),
        ("a:\n  b: {c: 1, c: 2}\n", 2, "'c' stands twice"),
        ("1: a\n'1': b\n", 2, "'1' stands twice"),
        ("a: &x\n  - *x\n", 1, "an alias refers to itself"),
        ("a: &x {b: *x}\n", 1, "an alias refers to itself"),
        (_BOMB, 0, "more than 100000 values"),
        ("[" * 100_000, 1, "nested deeper than 40"),
        ("".join(f"{' ' * i}a:\n" for i in range(60)), 0, "nested deeper than 40"),
        ("a:\n\tb: 1\n", 2, "not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("", 1, "the file is empty"),
        ("# only a comment\n", 1, "the file is empty"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        (b"a: 1\x00\n", 1, "control characters"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: [1\nb: 2\n", 0, "not YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "tag"),
        ("a: !!int x\n", 1, "'x' is no int"),
        ("a: !!timestamp 2001-01-01\n", 1, "is no timestamp"),
        ("? [a]\n: 1\n", 1, "a key is not a plain word"),
    ],
)
def test_what_is_ambiguous_or_damaged_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, line: int, words: str
) -> None:
    """One error, in bounded time, that says what and where. Line 0 here: wherever."""
    started = time.perf_counter()
    with pytest.raises(DocumentError) as refused:
        read(tmp_path, text)
    assert words in str(refused.value)
    assert line in (0, refused.value.line)
    assert refused.value.fix
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("kind", ["absent", "a folder"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, kind: str) -> None:
    """A missing file and a folder are no traceback."""
    path = tmp_path / "file.yaml"
    if kind == "a folder":
        path.mkdir()
    with pytest.raises(DocumentError, match="cannot be read"):
        read_document(path)


def test_every_node_has_its_line_and_others_that_of_their_parent(tmp_path: Path) -> None:
    """A complaint about a field that is not there points at its parent."""
    path = tmp_path / "file.yaml"
    path.write_text("a:\n  - b: 1\n    c:\n      d: 2\n")
    document = read_document(path)
    assert document.line("a", 0, "b") == 2
    assert document.line("a", 0, "c", "d") == 4
    assert document.line("a", 0, "nothing", "here") == 2
    assert document.line() == 1
