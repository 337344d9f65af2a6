"""The helper that reads what a preparation left: documents of a stream, and counts in its words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from falsifiers import split_corpus, tiny_runs
from falsifiers.split_corpus import Split


def test_counts_are_read_from_lines_of_their_own():
    """With separators, and not from a sentence that happens to say the word."""
    told = "train: 3 documents\nskipped: 1,024 duplicate\nskipped: 2 empty\nnot skipped: 5 binary\n"
    assert Split(0, told, (), (), 0).left_out() == {"duplicate": 1024, "empty": 2}


def test_documents_are_what_stands_between_ends_of_text(tmp_path: Path):
    """Over several shards in lexical order; what no end follows is no document."""
    ids = json.loads((tiny_runs.byte_tokenizer() / "encoder.json").read_text())
    end = ids["<|endoftext|>"]
    for name, stream in {
        "train-00001.bin": [ids["c"], end, ids["d"]],
        "train-00000.bin": [ids["a"], end, ids["b"]],
        "heldout-00000.bin": [ids["e"], end],
    }.items():
        np.array(stream, dtype="<u4").tofile(tmp_path / name)
    assert split_corpus._documents(tmp_path, "train") == ("a", "bc")
    assert split_corpus._documents(tmp_path, "heldout") == ("e",)
    assert split_corpus._documents(tmp_path / "nowhere", "train") == ()
