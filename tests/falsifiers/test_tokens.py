"""Texts become the right ids, by a tokenizer that shares no code with the trainer's."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch

from falsifiers import tokens
from falsifiers.tokens import TEXTS, Windows, read_tokens, shuffled, source_windows
from trainer.tokenizer import load_tokenizer

SMOLLM2 = "smollm2-135m-q4_1"
IDS_SHA256 = {
    "python_source.txt": "4c4c5c9c769c9715b0dd8ed5895868fa31d28213c75437498d2feff7ab81968a",
    "wikipedia.txt": "7280f0db15f5b57dca7755fde0872df7260c5908ed029fe9d84b35bebeffc38c",
}
"""Over the first 1025 ids as little-endian int64: what the recorded losses were measured on."""


@pytest.mark.parametrize("text", IDS_SHA256)
def test_ids_are_those_that_losses_were_recorded_on(text, asset):
    """Another pre-tokenizer, or another text, gives other ids and with them another loss."""
    ids = read_tokens(asset(SMOLLM2), text, 1025)
    assert hashlib.sha256(ids.numpy().astype("<i8").tobytes()).hexdigest() == IDS_SHA256[text]


@pytest.mark.parametrize("text", IDS_SHA256)
def test_ids_equal_the_trainers(text, asset):
    """Two tokenizers built independently from one file agree on the whole text."""
    path = asset(SMOLLM2)
    theirs = load_tokenizer(path).encode((TEXTS / text).read_text(encoding="utf-8"))
    assert read_tokens(path, text, len(theirs)).tolist() == theirs
    with pytest.raises(ValueError, match=f"has {len(theirs)} tokens"):
        read_tokens(path, text, len(theirs) + 1)


def test_digits_stand_alone(asset, tmp_path, monkeypatch):
    """SmolLM2 splits numbers into digits, off their space too; a round trip hides the lack."""
    # GPT-2's pattern would leave the last of several spaces to the number.
    text = "for x in range(1024):\n        7 + 3.14159    * x   2000\n"
    (tmp_path / "numbers.txt").write_text(text)
    monkeypatch.setattr(tokens, "TEXTS", tmp_path)
    path = asset(SMOLLM2)
    tokenizer = load_tokenizer(path)
    theirs = tokenizer.encode(text)
    assert read_tokens(path, "numbers.txt", len(theirs)).tolist() == theirs
    pieces = [tokenizer.decode([i]) for i in theirs]
    digits = [piece for piece in pieces if any(c.isdigit() for c in piece)]
    assert "".join(digits) == "102473141592000"
    assert {len(piece) for piece in digits} == {1}


def test_shuffling_keeps_the_ids_and_not_their_order():
    """The same multiset, by seed; the original stays."""
    ids = torch.arange(200)
    mixed = shuffled(ids, 0)
    assert torch.equal(mixed.sort().values, ids)
    assert not torch.equal(mixed, ids)
    assert torch.equal(mixed, shuffled(ids, 0))
    assert not torch.equal(mixed, shuffled(ids, 1))


def test_windows_predict_every_token_once(asset):
    """Consecutive windows share one token, the target of one and the first input of the next."""
    files = asset("gpt2-vocabulary-encoder"), asset("gpt2-vocabulary-merges")
    windows = source_windows(*files, count=12, length=16)
    assert windows.tokens.shape == (12, 17)
    assert torch.equal(windows.tokens, source_windows(*files, count=12, length=16).tokens)
    follows = (windows.tokens[:, -1][:, None] == windows.tokens[:, 0]).any(dim=1)
    assert follows.sum().item() >= 11, "all but the last window are followed by another"
    batches = list(windows.batches(4))
    assert torch.equal(torch.cat([batch.tokens for batch in batches]), windows.tokens)


def test_unigram_entropy_is_that_of_the_targets():
    """Two equally frequent targets cost ln 2, whatever the inputs; one target costs nothing."""
    assert Windows(torch.tensor([[9, 1, 2], [8, 2, 1]])).unigram_entropy() == pytest.approx(
        math.log(2), rel=1e-15
    )
    assert Windows(torch.tensor([[9, 1, 1]])).unigram_entropy() == 0.0
