"""The reference texts are the bytes that the recorded losses were measured on."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

TEXTS = Path(__file__).parents[2] / "falsifiers" / "texts"
SHA256 = {
    "wikipedia.txt": "02fcd2abf931211b403355e9b7d38d997d6a062577c6bc8f6ce6e7ae7269e3fa",
    "python_source.txt": "62867e40cdea6669b361f72af4d7daf0359f207c92cbeddfc7c7506397c1f31c",
    "python_prompts.txt": "c1af1251868cef2796a84c26be3c16a8f6a1bf5146f03b330543459a258ec45b",
}


@pytest.mark.parametrize("name", SHA256)
def test_the_bytes_are_those_that_losses_were_measured_on(name):
    """A changed byte changes the loss: the hash is pinned here and in the README alike."""
    assert hashlib.sha256((TEXTS / name).read_bytes()).hexdigest() == SHA256[name]


def test_every_text_is_in_the_readme_with_its_size_and_hash():
    """A text without provenance, or a row without a text, is found."""
    readme = (TEXTS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \|.*\| (\d+) \| `([0-9a-f]{64})` \|$", readme, re.MULTILINE)
    listed = {name: (int(size), digest) for name, size, digest in rows}
    present = {path.name for path in TEXTS.iterdir() if path.name != "README.md"}
    assert listed.keys() == present == SHA256.keys()
    for name, (size, digest) in listed.items():
        assert (size, digest) == ((TEXTS / name).stat().st_size, SHA256[name])


@pytest.mark.parametrize("name", SHA256)
def test_texts_are_plain(name):
    """UTF-8 with line feeds only: a checkout that rewrites line ends is found by name."""
    text = (TEXTS / name).read_bytes()
    assert b"\r" not in text and not text.startswith(b"\xef\xbb\xbf")
    assert text.decode("utf-8").endswith("\n")
